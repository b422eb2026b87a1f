//! Who is speaking: the resource of all spans and log records.
//!
//! A worker's pid is not part of it (one resource, many workers); it is on the span. The
//! pid here is the supervisor's.

mod surroundings;

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector};

pub use self::surroundings::Surroundings;
use crate::options::Options;

/// What the caller knows about this installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runtime {
    /// PHP's version, for example `8.2.28`; unknown while no engine has started.
    pub php_version: Option<String>,
    /// What kind of PHP that is, for example `PHP 8.2.28 NTS, API 20220829`.
    pub php_description: Option<String>,
    /// The machine's name.
    pub host_name: Option<String>,
    /// Names this start of the program among others: see [`random_instance_id`].
    pub instance_id: String,
    /// Where it runs.
    pub surroundings: Surroundings,
}

/// The resource: what we detect, under what the operator says.
pub fn resource(options: &Options, runtime: &Runtime) -> Resource {
    let mut attributes = vec![
        // As PHP's own SDK says it: php_sapi_name(), and applications expect that one of us.
        KeyValue::new("process.runtime.name", "fpm-fcgi"),
        KeyValue::new("service.instance.id", runtime.instance_id.clone()),
        KeyValue::new("telemetry.distro.name", "glasspool"),
        KeyValue::new("telemetry.distro.version", env!("CARGO_PKG_VERSION")),
    ];
    attributes.extend(
        runtime
            .php_version
            .clone()
            .map(|v| KeyValue::new("process.runtime.version", v)),
    );
    attributes.extend(
        runtime
            .php_description
            .clone()
            .map(|v| KeyValue::new("process.runtime.description", v)),
    );
    attributes.extend(runtime.surroundings.attributes());
    attributes.extend(runtime.host_name.clone().map(|v| KeyValue::new("host.name", v)));
    attributes.extend(
        options
            .resource_attributes
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
    );
    // Not Resource::builder(): that one reads the process's environment behind our back.
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes)
        .build()
}

/// A random UUID (RFC 9562, version 4), which the conventions recommend for
/// `service.instance.id`.
pub fn random_instance_id() -> String {
    let mut bytes = [0; 16];
    // Before the kernel's pool is ready this may give fewer bytes; such an id is less random, not wrong.
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    debug_assert_eq!(got, bytes.len(), "16 bytes are never cut once the pool is ready");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::options::FileDefaults;

    #[test]
    fn the_operator_has_the_last_word() {
        let variables = [(
            "OTEL_RESOURCE_ATTRIBUTES",
            "host.name=web7,deployment.environment.name=prod,service.namespace=shops,service.version=1.4.2",
        )];
        let variables: HashMap<_, _> = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (options, _) = Options::from_env(&variables, FileDefaults::default());
        let runtime = Runtime {
            php_version: Some("8.2.28".into()),
            php_description: Some("PHP 8.2.28 NTS, API 20220829".into()),
            host_name: Some("detected".into()),
            instance_id: "i".into(),
            surroundings: Surroundings {
                supervisor_pid: Some(7),
                ..Surroundings::default()
            },
        };
        let resource = resource(&options, &runtime);
        for (key, value) in [
            ("service.name", "php"),
            ("service.instance.id", "i"),
            ("host.name", "web7"),
            ("deployment.environment.name", "prod"),
            ("process.runtime.name", "fpm-fcgi"),
            ("process.runtime.version", "8.2.28"),
            ("process.runtime.description", "PHP 8.2.28 NTS, API 20220829"),
            ("process.pid", "7"),
            ("service.namespace", "shops"),
            ("service.version", "1.4.2"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.distro.name", "glasspool"),
        ] {
            assert_eq!(
                resource.get(&key.into()).map(|v| v.to_string()).as_deref(),
                Some(value),
                "{key}"
            );
        }
    }

    #[test]
    fn instance_ids_are_version_4_uuids_and_differ() {
        let id = random_instance_id();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]));
        assert_ne!(id, random_instance_id());
    }
}
