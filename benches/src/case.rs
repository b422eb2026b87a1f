//! The table of cases: what is asked for, by whom, of how many workers.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::server::Tracing;

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Case {
    /// For `--only` and as the key in the results.
    pub name: &'static str,
    /// What PHP does.
    pub page: Page,
    /// How requests come.
    pub way: Way,
    /// Workers of each server.
    pub workers: NonZeroU32,
    /// Requests under way at a time.
    pub clients: NonZeroU32,
    /// What the candidate exports meanwhile.
    pub tracing: Tracing,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Page {
    /// `php/hello.php`.
    Hello,
    /// `php/page.php`: about 0.4 ms of PHP, 31 KB.
    Table,
    /// `php/cpu.php`: about 50 ms of PHP.
    Cpu,
    /// WordPress's front page, with its database.
    WordPress,
}

/// How requests reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Own load generator, unix socket, a connection for each.
    Unix,
    /// Own load generator, unix socket, connections kept.
    UnixKeep,
    /// Own load generator, 127.0.0.1, a connection for each.
    Tcp,
    /// wrk and nginx, which makes a connection to the unix socket for each.
    Nginx,
    /// wrk and nginx, which keeps its connections (`fastcgi_keep_conn`).
    NginxKeep,
}

impl Page {
    /// Its path, and a text that stands at its end.
    pub fn path_and_text(self) -> (&'static str, &'static str) {
        match self {
            Self::Hello => ("/hello.php", "hello world"),
            Self::Table => ("/page.php", "end of page"),
            Self::Cpu => ("/cpu.php", "end of work"),
            Self::WordPress => ("/", "Sample post 24"),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Table => "page of 0.4 ms",
            Self::Cpu => "50 ms of PHP",
            Self::WordPress => "WordPress front page",
        }
    }
}

impl Way {
    /// Whether nginx and wrk are needed.
    pub fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxKeep)
    }

    /// Whether connections to the server are kept.
    pub fn keeps(self) -> bool {
        matches!(self, Self::UnixKeep | Self::NginxKeep)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unix => "unix socket, new connections",
            Self::UnixKeep => "unix socket, kept connections",
            Self::Tcp => "TCP, new connections",
            Self::Nginx => "through nginx, new connections",
            Self::NginxKeep => "through nginx, kept connections",
        }
    }
}

impl Case {
    /// One line for people.
    pub fn title(&self) -> String {
        let tracing = match self.tracing {
            Tracing::Off => "tracing off",
            Tracing::OnePercent => "tracing on, 1 % exported",
            Tracing::All => "tracing on, 100 % exported",
        };
        let plural = |count: NonZeroU32, what: &str| match count.get() {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let (workers, clients) = (plural(self.workers, "worker"), plural(self.clients, "client"));
        format!(
            "{}: {}, {workers}, {clients}, {tracing}",
            self.page.words(),
            self.way.words()
        )
    }
}

/// Hello on a unix socket with all spans exported: CPU per request is promised for it.
pub const HELLO_TRACED: &str = "hello-unix-traced";
/// Hello through nginx with 1 % exported: throughput and latency are promised for it.
pub const HELLO_NGINX: &str = "nginx-hello";
/// CPU-bound PHP.
pub const CPU: &str = "cpu";
/// WordPress.
pub const WORDPRESS: &str = "wordpress";
/// Not a comparison under load: how long a worker is stopped for a backtrace (`crate::slow`).
pub const SLOW_STOP: &str = "slow-stop";
/// Not a comparison under load: what a look at a PHP process costs (`crate::look`).
pub const LOOK: &str = "look";
/// Not a comparison under load: whether looks at a running process are ever wrong (`crate::look::torn`).
pub const TORN: &str = "torn";
/// Glasspool against itself, with programs in the kernel and without (`crate::waits::cost`).
pub const HELLO_EBPF: &str = "hello-ebpf";
/// Not a comparison: whether the parts of requests' times add up (`crate::waits::sum`).
pub const WAITS_SUM: &str = "waits-sum";

/// Not a comparison: whether all that counts requests counts the same (`crate::telemetry::counts`).
pub const COUNTS: &str = "telemetry-counts";
/// Not a comparison with stock: a collector that never answers (`crate::telemetry::black_hole`).
pub const BLACK_HOLE: &str = "telemetry-black-hole";
/// Nor this: what tracing costs (`crate::telemetry::cost`).
pub const COST: &str = "telemetry-cost";

use Page::{Cpu, Hello, Table, WordPress};
use Tracing::{All, Off, OnePercent};
use Way::{Nginx, NginxKeep, Tcp, Unix, UnixKeep};

/// All of them, in the order of a run.
pub const CASES: [Case; 12] = [
    case("hello-unix", Hello, Unix, 1, 4, Off),
    case("hello-unix-1pct", Hello, Unix, 1, 4, OnePercent),
    case(HELLO_TRACED, Hello, Unix, 1, 4, All),
    case("hello-tcp", Hello, Tcp, 1, 4, OnePercent),
    case("hello-keep", Hello, UnixKeep, 2, 2, OnePercent),
    case("nginx-hello-off", Hello, Nginx, 2, 8, Off),
    case(HELLO_NGINX, Hello, Nginx, 2, 8, OnePercent),
    case("nginx-hello-traced", Hello, Nginx, 2, 8, All),
    case("nginx-keep", Hello, NginxKeep, 2, 2, OnePercent),
    case("nginx-page", Table, Nginx, 2, 8, OnePercent),
    case(CPU, Cpu, Unix, 1, 1, OnePercent),
    case(WORDPRESS, WordPress, Nginx, 2, 2, All),
];

const fn case(
    name: &'static str,
    page: Page,
    way: Way,
    workers: u32,
    clients: u32,
    tracing: Tracing,
) -> Case {
    let workers = NonZeroU32::new(workers).expect("written above");
    let clients = NonZeroU32::new(clients).expect("written above");
    Case {
        name,
        page,
        way,
        workers,
        clients,
        tracing,
    }
}

/// All names that `--only` accepts.
pub fn names() -> impl Iterator<Item = &'static str> {
    let others = [
        SLOW_STOP, LOOK, TORN, HELLO_EBPF, WAITS_SUM, COUNTS, BLACK_HOLE, COST,
    ];
    CASES.iter().map(|case| case.name).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_promised_cases_exist() {
        let mut all: Vec<_> = names().collect();
        for promised in [HELLO_TRACED, HELLO_NGINX, CPU, WORDPRESS] {
            assert!(all.contains(&promised));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_title_tells_the_conditions() {
        let case = CASES.iter().find(|case| case.name == HELLO_NGINX).unwrap();
        let title = "hello: through nginx, new connections, 2 workers, 8 clients, tracing on, 1 % exported";
        assert_eq!(case.title(), title);
    }
}
