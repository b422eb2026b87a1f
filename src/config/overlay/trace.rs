//! `[trace]` and `[pool.NAME.trace]`: which requests are sampled, whose word counts, what they are called.
//!
//! The tables as written are private here; what comes out of them is checked. Lists are bounded, as every worker
//! gets a copy and walks through its rules for each request.

use std::fmt;

use glasspool_abi::control::ControllerPattern;
use glasspool_abi::trace::origin::{Network, ProxyHeaders};
use glasspool_abi::trace::policy::Trust;
use glasspool_abi::trace::sampling::{Glob, METHOD_BYTES, Route, Rule, Which};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use toml::Spanned;

use super::controllers;

/// Most `[[trace.rule]]`.
const MOST_RULES: usize = 64;
/// Most `[[trace.route]]`.
const MOST_ROUTES: usize = 256;
/// Most networks in a list.
const MOST_NETWORKS: usize = 256;
/// Most keys to redact.
const MOST_KEYS: usize = 256;
/// Longest route; what a record can hold of one that PHP names.
const ROUTE_BYTES: usize = 128;

/// `[trace]`.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(try_from = "TraceTable")]
pub struct Trace {
    /// Head sampling; slow, failed and killed requests are exported whatever it says.
    pub sampler: Option<Sampler>,
    /// Share of traces to export, 0 to 1; for the ratio samplers only.
    pub ratio: Option<f64>,
    /// With whose trace a request goes on.
    pub trust_incoming: Trust,
    /// Proxies whose word on the client counts.
    pub trusted_proxies: Vec<Network>,
    /// Which headers these write.
    pub proxy_headers: ProxyHeaders,
    /// Query parameters whose value is not shown, in the place of the conventions' own list.
    pub redact_query: Option<Vec<String>>,
    /// `[[trace.rule]]`, the first that matches counts.
    pub rules: Vec<PoolRule>,
    /// `[[trace.route]]`, likewise.
    pub routes: Vec<Route>,
    /// Classes whose methods name requests that nobody else names; `None` if nothing is said.
    pub controllers: Option<Vec<ControllerPattern>>,
}

/// `[[trace.rule]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRule {
    /// What it says.
    pub rule: Rule,
    /// Of which pool, as written; `None` for all.
    pub pool: Option<Spanned<String>>,
}

/// `[pool.NAME.trace]`, over `[trace]`.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(try_from = "PoolTraceTable")]
pub struct PoolTrace {
    /// See [`Trace::sampler`].
    pub sampler: Option<Sampler>,
    /// See [`Trace::ratio`].
    pub ratio: Option<f64>,
    /// See [`Trace::controllers`].
    pub controllers: Option<Vec<ControllerPattern>>,
}

/// Samplers, by the names of `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the OpenTelemetry specification defines the names")]
pub enum Sampler {
    AlwaysOn,
    AlwaysOff,
    #[serde(rename = "traceidratio")]
    TraceIdRatio,
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

impl Sampler {
    /// Whether `trace.ratio` has an effect with it.
    pub fn takes_ratio(self) -> bool {
        matches!(self, Self::TraceIdRatio | Self::ParentBasedTraceIdRatio)
    }

    /// Whether it follows the caller's decision.
    pub fn is_parent_based(self) -> bool {
        matches!(
            self,
            Self::ParentBasedAlwaysOn | Self::ParentBasedAlwaysOff | Self::ParentBasedTraceIdRatio
        )
    }
}

/// `[trace]` as written.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TraceTable {
    sampler: Option<Sampler>,
    #[serde(deserialize_with = "some_ratio")]
    ratio: Option<f64>,
    #[serde(deserialize_with = "trust")]
    trust_incoming: Trust,
    #[serde(deserialize_with = "networks")]
    trusted_proxies: Vec<Network>,
    proxy_headers: ProxyHeadersWord,
    #[serde(deserialize_with = "keys")]
    redact_query: Option<Vec<String>>,
    #[serde(deserialize_with = "rules")]
    rule: Vec<RuleTable>,
    #[serde(deserialize_with = "routes")]
    route: Vec<RouteTable>,
    #[serde(deserialize_with = "controllers::patterns")]
    route_from_controller: Option<Vec<ControllerPattern>>,
}

/// `[pool.NAME.trace]` as written.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PoolTraceTable {
    sampler: Option<Sampler>,
    #[serde(deserialize_with = "some_ratio")]
    ratio: Option<f64>,
    #[serde(deserialize_with = "controllers::patterns")]
    route_from_controller: Option<Vec<ControllerPattern>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProxyHeadersWord {
    #[default]
    XForwarded,
    Forwarded,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    #[serde(default, deserialize_with = "some_glob")]
    path: Option<Glob>,
    #[serde(default, deserialize_with = "some_method")]
    method: Option<String>,
    #[serde(default)]
    pool: Option<Spanned<String>>,
    #[serde(deserialize_with = "ratio")]
    ratio: f64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    #[serde(deserialize_with = "glob")]
    path: Glob,
    #[serde(default, deserialize_with = "some_method")]
    method: Option<String>,
    #[serde(deserialize_with = "template")]
    template: String,
}

/// A ratio that no sampler reads is a mistake which only both keys together show.
fn check_ratio(sampler: Option<Sampler>, ratio: Option<f64>) -> Result<(), &'static str> {
    // Without a sampler here, OTEL_TRACES_SAMPLER may still name one that reads the ratio.
    if ratio.is_some() && sampler.is_some_and(|sampler| !sampler.takes_ratio()) {
        return Err(
            "ratio has no effect with this sampler, allowed are traceidratio and parentbased_traceidratio",
        );
    }
    Ok(())
}

impl TryFrom<TraceTable> for Trace {
    type Error = &'static str;

    fn try_from(table: TraceTable) -> Result<Self, Self::Error> {
        check_ratio(table.sampler, table.ratio)?;
        let rules = table.rule.into_iter().map(|rule| PoolRule {
            rule: Rule {
                which: Which {
                    path: rule.path,
                    method: rule.method,
                },
                ratio: rule.ratio,
            },
            pool: rule.pool,
        });
        let routes = table.route.into_iter().map(|route| Route {
            which: Which {
                path: Some(route.path),
                method: route.method,
            },
            route: route.template,
        });
        Ok(Self {
            sampler: table.sampler,
            ratio: table.ratio,
            trust_incoming: table.trust_incoming,
            trusted_proxies: table.trusted_proxies,
            proxy_headers: match table.proxy_headers {
                ProxyHeadersWord::XForwarded => ProxyHeaders::XForwarded,
                ProxyHeadersWord::Forwarded => ProxyHeaders::Forwarded,
            },
            redact_query: table.redact_query,
            rules: rules.collect(),
            routes: routes.collect(),
            controllers: table.route_from_controller,
        })
    }
}

impl TryFrom<PoolTraceTable> for PoolTrace {
    type Error = &'static str;

    fn try_from(table: PoolTraceTable) -> Result<Self, Self::Error> {
        check_ratio(table.sampler, table.ratio)?;
        Ok(Self {
            sampler: table.sampler,
            ratio: table.ratio,
            controllers: table.route_from_controller,
        })
    }
}

fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(from)?;
    // NaN is in no range.
    if (0.0..=1.0).contains(&ratio) {
        return Ok(ratio);
    }
    Err(D::Error::invalid_value(
        Unexpected::Float(ratio),
        &"a number from 0 to 1",
    ))
}

fn some_ratio<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    ratio(from).map(Some)
}

fn glob<'de, D: Deserializer<'de>>(from: D) -> Result<Glob, D::Error> {
    let text = String::deserialize(from)?;
    Glob::new(&text).map_err(|why| D::Error::custom(format!("{text:?}: {why}")))
}

fn some_glob<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Glob>, D::Error> {
    glob(from).map(Some)
}

fn some_method<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let method = String::deserialize(from)?;
    let is_good = (1..=METHOD_BYTES).contains(&method.len())
        && method
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte));
    if is_good {
        return Ok(Some(method));
    }
    let expected = "a method in capital letters, such as \"POST\"";
    Err(D::Error::invalid_value(Unexpected::Str(&method), &expected))
}

fn template<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if (1..=ROUTE_BYTES).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text);
    }
    let expected = "a route of 1 to 128 bytes, such as \"/user/{id}\"";
    Err(D::Error::invalid_value(Unexpected::Str(&text), &expected))
}

fn network<E: Error>(text: &str) -> Result<Network, E> {
    text.parse().map_err(|why| E::custom(format!("{text:?}: {why}")))
}

fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Network>, D::Error> {
    let list = bounded::<String, D>(from, MOST_NETWORKS, "networks")?;
    list.iter().map(|text| network(text)).collect()
}

fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    bounded(from, MOST_KEYS, "query parameters").map(Some)
}

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RuleTable>, D::Error> {
    bounded(from, MOST_RULES, "rules")
}

fn routes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RouteTable>, D::Error> {
    bounded(from, MOST_ROUTES, "routes")
}

fn bounded<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
    most: usize,
    what: &str,
) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(from)?;
    if list.len() > most {
        let count = list.len();
        return Err(D::Error::custom(format!(
            "{count} {what}, at most {most} are allowed"
        )));
    }
    Ok(list)
}

/// `true`, `false`, or a list of networks.
fn trust<'de, D: Deserializer<'de>>(from: D) -> Result<Trust, D::Error> {
    struct Said;

    impl<'de> Visitor<'de> for Said {
        type Value = Trust;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false, or a list of networks such as [\"10.0.0.0/8\"]")
        }

        fn visit_bool<E: Error>(self, everybody: bool) -> Result<Trust, E> {
            Ok(if everybody {
                Trust::Everybody
            } else {
                Trust::Nobody
            })
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Trust, A::Error> {
            let mut networks = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                if networks.len() == MOST_NETWORKS {
                    return Err(A::Error::custom(format!(
                        "at most {MOST_NETWORKS} networks are allowed"
                    )));
                }
                networks.push(network(&text)?);
            }
            Ok(Trust::From(networks))
        }
    }

    from.deserialize_any(Said)
}
