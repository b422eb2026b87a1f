//! What each pool's workers are told of traces, from `[trace]`, `[pool.NAME.trace]` and the
//! environment.

use glasspool_abi::control::ControllerPattern;
use glasspool_abi::trace::Sampler;
use glasspool_abi::trace::policy::{Policy, Propagators};

use crate::config::{self, PoolTrace, Trace};

/// What all pools of one reading share.
#[derive(Debug, Clone, Default)]
pub(super) struct Sampling {
    /// How requests are sampled; `None` when no spans are made.
    pub(super) sampler: Option<Sampler>,
    /// Which headers carry contexts.
    pub(super) propagators: Propagators,
    /// `[trace]`.
    pub(super) trace: Trace,
}

impl Sampling {
    /// The sampler of a pool. What the pool's own table says wins over the environment,
    /// which has no words for pools.
    pub(super) fn sampler(&self, own: &PoolTrace) -> Sampler {
        let all = self.sampler.unwrap_or_default();
        let ratio = own.ratio.unwrap_or(all.ratio);
        match own.sampler {
            None => Sampler { ratio, ..all },
            Some(kind) => Sampler {
                parent_based: kind.is_parent_based(),
                ratio: match kind {
                    config::Sampler::AlwaysOn | config::Sampler::ParentBasedAlwaysOn => 1.0,
                    config::Sampler::AlwaysOff | config::Sampler::ParentBasedAlwaysOff => 0.0,
                    config::Sampler::TraceIdRatio | config::Sampler::ParentBasedTraceIdRatio => ratio,
                },
            },
        }
    }

    /// Which classes name requests of a pool that nobody else names.
    pub(super) fn controllers(&self, own: &PoolTrace) -> Vec<ControllerPattern> {
        let said = own.controllers.as_ref().or(self.trace.controllers.as_ref());
        said.cloned().unwrap_or_default()
    }

    /// What else the workers of that pool are told.
    pub(super) fn policy(&self, pool: &str) -> Policy {
        let rules = self.trace.rules.iter();
        let of_pool = rules.filter(|rule| {
            let name = rule.pool.as_ref();
            name.is_none_or(|name| name.get_ref().eq_ignore_ascii_case(pool))
        });
        Policy {
            propagators: self.propagators,
            trust: self.trace.trust_incoming.clone(),
            proxies: self.trace.trusted_proxies.clone(),
            proxy_headers: self.trace.proxy_headers,
            rules: of_pool.map(|rule| rule.rule.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_own_words_win() {
        let sampling = Sampling {
            sampler: Some(Sampler {
                parent_based: true,
                ratio: 0.25,
            }),
            ..Sampling::default()
        };
        let own = |sampler, ratio| {
            let own = PoolTrace {
                sampler,
                ratio,
                controllers: None,
            };
            let sampler = sampling.sampler(&own);
            (sampler.parent_based, sampler.ratio)
        };
        assert_eq!(own(None, None), (true, 0.25));
        assert_eq!(own(None, Some(0.5)), (true, 0.5));
        assert_eq!(own(Some(config::Sampler::AlwaysOff), None), (false, 0.0));
        assert_eq!(own(Some(config::Sampler::ParentBasedAlwaysOn), None), (true, 1.0));
        assert_eq!(own(Some(config::Sampler::TraceIdRatio), None), (false, 0.25));
        assert_eq!(own(Some(config::Sampler::TraceIdRatio), Some(0.1)), (false, 0.1));
    }

    #[test]
    fn a_pools_own_classes_win_and_there_are_none_unless_asked_for() {
        let told = |all: &str, own: &str| -> Vec<String> {
            let sampling = Sampling {
                trace: toml::from_str(all).expect("a table"),
                ..Sampling::default()
            };
            let told = sampling.controllers(&toml::from_str(own).expect("a table"));
            let told = told.iter();
            told.map(|one| format!("{}{}", if one.excluded { "!" } else { "" }, one.class.as_str()))
                .collect()
        };
        let (yes, no) = ("route_from_controller = true", "route_from_controller = false");
        let listed = r"route_from_controller = ['!Base\*', '\App\*Page']";
        assert!(told("", "").is_empty() && told(yes, no).is_empty());
        assert!(told(yes, "").ends_with(&["*Controller", "*Action", "*Handler"].map(str::to_owned)));
        assert_eq!(told(no, yes), told(yes, ""));
        assert_eq!(told(yes, listed), [r"!Base\*", r"App\*Page"]);
    }

    #[test]
    fn a_pool_is_told_its_own_rules_in_their_order() {
        let text =
            "[[rule]]\nratio = 0.1\npool = 'api'\n[[rule]]\nratio = 0.2\n[[rule]]\nratio = 0.3\npool = 'WWW'";
        let sampling = Sampling {
            trace: toml::from_str(text).expect("a table"),
            ..Sampling::default()
        };
        let ratios = |pool| -> Vec<f64> {
            let policy = sampling.policy(pool);
            policy.rules.iter().map(|rule| rule.ratio).collect()
        };
        assert_eq!(ratios("www"), [0.2, 0.3]);
        assert_eq!(ratios("api"), [0.1, 0.2]);
    }
}
