//! The messages. They are few and their numbers never change, so they are written here and no compiler of theirs is
//! needed; `reflection` describes them to clients that do not know them.

use std::collections::BTreeMap;

/// Asks for a service's health.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// A service's health.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub(super) status: i32,
}

/// Whether a service takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
pub(super) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    /// There is no such service.
    ServiceUnknown = 3,
}

/// Asks for the health of all services.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct HealthListRequest {}

/// The health of all services.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct HealthListResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) statuses: BTreeMap<String, HealthCheckResponse>,
}

/// Asks for reports.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OrcaLoadReportRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) report_interval: Option<prost_types::Duration>,
}

/// A report, in the two fields that hcf uses.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct OrcaLoadReport {
    #[prost(double, tag = "6")]
    pub(super) rps_fractional: f64,
    #[prost(double, tag = "9")]
    pub(super) application_utilization: f64,
}
