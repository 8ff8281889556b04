//! `grpc.reflection`, by which clients such as grpcurl find the services and learn their messages, in both of its
//! versions.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::{Request, Response};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::{Builder, Error};

use super::Answering;
use super::proto::ServingStatus;

type Reflect = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// The service in each version.
pub(super) struct Reflection {
    pub(super) v1: Reflect,
    pub(super) v1alpha: Reflect,
}

impl Reflection {
    pub(super) fn new() -> Result<Self, Error> {
        let builder = || {
            Builder::configure().register_file_descriptor_set(FileDescriptorSet {
                file: vec![health(), duration(), report(), orca()],
            })
        };
        Ok(Self { v1: boxed(builder().build_v1()?), v1alpha: boxed(builder().build_v1alpha()?) })
    }
}

fn boxed<S>(server: S) -> Reflect
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let answer = server.clone().call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}

fn health() -> FileDescriptorProto {
    const ANSWER: &str = ".grpc.health.v1.HealthCheckResponse";
    let values = [
        ("UNKNOWN", ServingStatus::Unknown),
        ("SERVING", ServingStatus::Serving),
        ("NOT_SERVING", ServingStatus::NotServing),
        ("SERVICE_UNKNOWN", ServingStatus::ServiceUnknown),
    ];
    let value = |(name, value): (&str, ServingStatus)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(value.into()),
        options: None,
    };
    let statuses = EnumDescriptorProto {
        name: Some("ServingStatus".to_owned()),
        value: values.map(value).into(),
        ..EnumDescriptorProto::default()
    };
    let response = DescriptorProto {
        enum_type: vec![statuses],
        ..message(
            "HealthCheckResponse",
            [of_type(
                field("status", 1, Type::Enum),
                ".grpc.health.v1.HealthCheckResponse.ServingStatus",
            )],
        )
    };
    let entry = DescriptorProto {
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..message(
            "StatusesEntry",
            [field("key", 1, Type::String), of_type(field("value", 2, Type::Message), ANSWER)],
        )
    };
    let entries = of_type(
        field("statuses", 1, Type::Message),
        ".grpc.health.v1.HealthListResponse.StatusesEntry",
    );
    let list = DescriptorProto {
        nested_type: vec![entry],
        ..message(
            "HealthListResponse",
            [FieldDescriptorProto { label: Some(Label::Repeated.into()), ..entries }],
        )
    };
    let request = message("HealthCheckRequest", [field("service", 1, Type::String)]);
    let methods = [
        method("Check", ".grpc.health.v1.HealthCheckRequest", ANSWER, false),
        method(
            "List",
            ".grpc.health.v1.HealthListRequest",
            ".grpc.health.v1.HealthListResponse",
            false,
        ),
        method("Watch", ".grpc.health.v1.HealthCheckRequest", ANSWER, true),
    ];
    FileDescriptorProto {
        message_type: vec![request, response, message("HealthListRequest", []), list],
        service: vec![service("Health", methods)],
        ..file("grpc/health/v1/health.proto", "grpc.health.v1", &[])
    }
}

const DURATION: &str = "google/protobuf/duration.proto";
const REPORT: &str = "xds/data/orca/v3/orca_load_report.proto";

fn duration() -> FileDescriptorProto {
    let fields = [field("seconds", 1, Type::Int64), field("nanos", 2, Type::Int32)];
    FileDescriptorProto {
        message_type: vec![message("Duration", fields)],
        ..file(DURATION, "google.protobuf", &[])
    }
}

/// With the two fields that hcf uses; a client that knows more of them sees zeros there.
fn report() -> FileDescriptorProto {
    let fields = [
        field("rps_fractional", 6, Type::Double),
        field("application_utilization", 9, Type::Double),
    ];
    FileDescriptorProto {
        message_type: vec![message("OrcaLoadReport", fields)],
        ..file(REPORT, "xds.data.orca.v3", &[])
    }
}

fn orca() -> FileDescriptorProto {
    let interval = of_type(field("report_interval", 1, Type::Message), ".google.protobuf.Duration");
    let stream = method(
        "StreamCoreMetrics",
        ".xds.service.orca.v3.OrcaLoadReportRequest",
        ".xds.data.orca.v3.OrcaLoadReport",
        true,
    );
    FileDescriptorProto {
        message_type: vec![message("OrcaLoadReportRequest", [interval])],
        service: vec![service("OpenRcaService", [stream])],
        ..file("xds/service/orca/v3/orca.proto", "xds.service.orca.v3", &[DURATION, REPORT])
    }
}

fn file(name: &str, package: &str, dependencies: &[&str]) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: dependencies.iter().map(|&name| name.to_owned()).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn message<const N: usize>(name: &str, fields: [FieldDescriptorProto; N]) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.into(),
        ..DescriptorProto::default()
    }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    }
}

fn of_type(field: FieldDescriptorProto, name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto { type_name: Some(name.to_owned()), ..field }
}

fn service<const N: usize>(
    name: &str,
    methods: [MethodDescriptorProto; N],
) -> ServiceDescriptorProto {
    ServiceDescriptorProto { name: Some(name.to_owned()), method: methods.into(), options: None }
}

fn method(name: &str, asked: &str, answer: &str, on_and_on: bool) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(asked.to_owned()),
        output_type: Some(answer.to_owned()),
        server_streaming: Some(on_and_on),
        ..MethodDescriptorProto::default()
    }
}
