//! The settings of tracing: the standard names of OpenTelemetry, with its defaults where it has any that fit.

use super::{Kind, Row};

/// What of the environment belongs to this part of the table. Other names of OpenTelemetry are for other
/// programs or signals.
pub(in crate::config) const PREFIX: &str = "OTEL_";

/// name, environment variable, placeholder, default, kind, meaning
pub(super) const TRACING: &[Row] = &[
    (
        "otel_exporter_otlp_endpoint",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "URL",
        "",
        Kind::Text,
        "Where traces are sent, as http://host:port; nothing is traced without it or the next one.",
    ),
    (
        "otel_exporter_otlp_traces_endpoint",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "URL",
        "",
        Kind::Text,
        "The same for traces alone, with the whole path for http/protobuf; it wins over the other one.",
    ),
    (
        "otel_exporter_otlp_protocol",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "grpc|http/protobuf",
        "http/protobuf",
        Kind::Text,
        "How traces are sent.",
    ),
    (
        "otel_exporter_otlp_headers",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "NAME=VALUE,…",
        "",
        Kind::Secret,
        "What is sent along with traces, such as a credential.",
    ),
    (
        "otel_exporter_otlp_timeout",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "MILLISECONDS",
        "10000",
        Kind::Text,
        "How long one request with traces may take.",
    ),
    (
        "otel_service_name",
        "OTEL_SERVICE_NAME",
        "NAME",
        "hiveops-node",
        Kind::Text,
        "What this program is called in traces.",
    ),
    (
        "otel_resource_attributes",
        "OTEL_RESOURCE_ATTRIBUTES",
        "NAME=VALUE,…",
        "",
        Kind::Text,
        "What else traces say of this program.",
    ),
    (
        "otel_traces_sampler",
        "OTEL_TRACES_SAMPLER",
        "NAME",
        "parentbased_traceidratio",
        Kind::Text,
        "Which traces are kept: always_on, always_off or traceidratio, or with parentbased_ before it what the \
         publisher has decided, else that.",
    ),
    (
        "otel_traces_sampler_arg",
        "OTEL_TRACES_SAMPLER_ARG",
        "SHARE",
        "0.01",
        Kind::Text,
        "The share that traceidratio keeps, 0 to 1.",
    ),
    (
        "otel_bsp_schedule_delay",
        "OTEL_BSP_SCHEDULE_DELAY",
        "MILLISECONDS",
        "5000",
        Kind::Text,
        "How long spans wait for others to be sent with.",
    ),
    (
        "otel_bsp_export_timeout",
        "OTEL_BSP_EXPORT_TIMEOUT",
        "MILLISECONDS",
        "30000",
        Kind::Text,
        "How long sending a batch of spans may take; then it is dropped and counted.",
    ),
    (
        "otel_bsp_max_queue_size",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "NUMBER",
        "2048",
        Kind::Text,
        "Spans that may wait; what is more is dropped and counted.",
    ),
    (
        "otel_bsp_max_export_batch_size",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "NUMBER",
        "512",
        Kind::Text,
        "Spans that are sent together.",
    ),
    (
        "otel_sdk_disabled",
        "OTEL_SDK_DISABLED",
        "true|false",
        "false",
        Kind::Switch,
        "Whether nothing is traced, whatever the other settings say.",
    ),
];
