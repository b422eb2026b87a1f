//! What a pool's workers are told of traces: whose context counts, and how much is
//! sampled. The supervisor makes it from the configuration.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::origin::{Network, ProxyHeaders};
use super::sampling::Rule;

/// What the workers of a pool do with the context of a request. The default is what is
/// done without any configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Which headers are read, and rewritten for PHP.
    pub propagators: Propagators,
    /// Whose context is gone on with.
    pub trust: Trust,
    /// Proxies whose word on the client counts.
    pub proxies: Vec<Network>,
    /// Which headers these write.
    pub proxy_headers: ProxyHeaders,
    /// The first that matches replaces the sampler's ratio.
    pub rules: Vec<Rule>,
}

/// `OTEL_PROPAGATORS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagators {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
    /// B3 in one header.
    pub b3: bool,
    /// B3 in several headers.
    pub b3_multi: bool,
}

impl Propagators {
    /// None of them.
    pub const NONE: Propagators = Propagators {
        trace_context: false,
        baggage: false,
        b3: false,
        b3_multi: false,
    };

    /// Whether B3 is read, which always is in both forms.
    pub fn any_b3(self) -> bool {
        self.b3 || self.b3_multi
    }
}

impl Default for Propagators {
    /// `tracecontext,baggage`, the specification's default.
    fn default() -> Self {
        Propagators {
            trace_context: true,
            baggage: true,
            ..Propagators::NONE
        }
    }
}

/// `trace.trust_incoming`: with whose trace a request goes on. That of others is linked
/// and a new one begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Trust {
    /// Everybody's.
    #[default]
    Everybody,
    /// Nobody's.
    Nobody,
    /// That of clients in these networks.
    From(Vec<Network>),
}

impl Trust {
    /// Whether the context of a client is gone on with; `client` is asked for only where
    /// it matters.
    pub fn trusts(&self, client: impl FnOnce() -> Option<IpAddr>) -> bool {
        match self {
            Trust::Everybody => true,
            Trust::Nobody => false,
            Trust::From(networks) => {
                client().is_some_and(|address| networks.iter().any(|network| network.contains(address)))
            }
        }
    }
}
