//! What clients ask over gRPC.

use prost::Message;

use super::orca::interval;
use super::proto::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, OrcaLoadReport,
    OrcaLoadReportRequest,
};

/// Every message, whether it comes to us or goes from us.
pub(crate) fn grpc_message(data: &[u8]) {
    same::<HealthCheckRequest>(data);
    same::<HealthCheckResponse>(data);
    same::<HealthListRequest>(data);
    same::<HealthListResponse>(data);
    same::<OrcaLoadReport>(data);
    if let Some(asked) = same::<OrcaLoadReportRequest>(data) {
        let every = interval(&asked).as_millis();
        assert!((100..=3_600_000).contains(&every), "{asked:?}");
    }
}

/// What was read is what is written, and read again.
fn same<M: Message + Default>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    let written = message.encode_to_vec();
    assert_eq!(written.len(), message.encoded_len());
    // Compared as bytes: a NaN equals nothing.
    assert!(M::decode(&*written).is_ok_and(|again| again.encode_to_vec() == written));
    Some(message)
}
