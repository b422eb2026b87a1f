//! `OTEL_PROPAGATORS`: which headers carry contexts.

use glasspool_abi::trace::policy::Propagators;

use crate::env::Env;

/// A list; a name that is not known is told of and left out. `none` is for itself.
pub(super) fn propagators(env: &Env<'_>) -> Propagators {
    const NAME: &str = "OTEL_PROPAGATORS";
    let Some(list) = env.text(NAME) else {
        return Propagators::default();
    };
    let mut found = Propagators::NONE;
    let (mut is_none, mut is_any) = (false, false);
    let names = list.split(',').map(|name| name.trim().to_ascii_lowercase());
    for name in names.filter(|name| !name.is_empty()) {
        let place = match name.as_str() {
            "tracecontext" => &mut found.trace_context,
            "baggage" => &mut found.baggage,
            "b3" => &mut found.b3,
            "b3multi" => &mut found.b3_multi,
            "none" => &mut is_none,
            _ => {
                let known = "tracecontext, baggage, b3, b3multi, none";
                env.warn(NAME, format!("{name:?} is not one of {known}; ignored"));
                continue;
            }
        };
        *place = true;
        is_any = true;
    }
    match (is_any, is_none && found != Propagators::NONE) {
        (false, _) => {
            env.warn(
                NAME,
                "names none that is known; tracecontext and baggage are used",
            );
            Propagators::default()
        }
        (true, true) => {
            env.warn(NAME, "none stands beside others; no headers are read or written");
            Propagators::NONE
        }
        (true, false) => found,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn lists_of_propagators() {
        let of = |trace_context, baggage, b3, b3_multi| Propagators {
            trace_context,
            baggage,
            b3,
            b3_multi,
        };
        for (list, expected, warnings) in [
            ("", Propagators::default(), 0),
            ("tracecontext,baggage", Propagators::default(), 0),
            (" TraceContext , B3 ", of(true, false, true, false), 0),
            ("b3multi", of(false, false, false, true), 0),
            ("none", Propagators::NONE, 0),
            ("none,b3", Propagators::NONE, 1),
            ("tracecontext,jaeger", of(true, false, false, false), 1),
            ("xray", Propagators::default(), 2),
            (",", Propagators::default(), 1),
        ] {
            let map = HashMap::from([("OTEL_PROPAGATORS".to_owned(), list.to_owned())]);
            let env = Env::new(&map);
            assert_eq!(propagators(&env), expected, "{list:?}");
            assert_eq!(env.into_warnings().len(), warnings, "{list:?}");
        }
    }
}
