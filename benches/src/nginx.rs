//! nginx in front of both servers, with a port for each.
//!
//! One nginx with one process serves both sides, so that its own state (page cache, warm code) is the
//! same for both. Its settings are nginx's defaults, but for what a case is about. Its `stub_status` counts
//! requests exactly, also those that `wrk` had under way when its time was over. Where every request is
//! exported, `fastcgi_ignore_client_abort` lets the servers finish those too, so that requests and spans can
//! be set against each other; elsewhere a handful of some ten thousand is cut off, as it is by default.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fd::AsFd;
use rustix::process::Signal;

use crate::BenchError;
use crate::load::Address;
use crate::process::Process;
use crate::server::{Side, free_port};
use crate::stop::{Stop, Waited};

const START_LIMIT: Duration = Duration::from_secs(15);
const IDLE_LIMIT: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(10);
const HTTP_LIMIT: Duration = Duration::from_secs(15);
/// Largest page that is read to be checked.
const MAX_PAGE_BYTES: u64 = 8 << 20;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    stock: SocketAddrV4,
    candidate: SocketAddrV4,
    status: SocketAddrV4,
    /// Status pages asked for, which nginx counts as well.
    status_asked: u64,
}

/// `stub_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    requests: u64,
    reading: u64,
    writing: u64,
}

impl Nginx {
    /// Starts it for the servers at these addresses; `keep` keeps connections to them.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(
        nginx: &Path,
        dir: &Path,
        root: &Path,
        servers: [&Address; 2],
        keep: bool,
        finish_all: bool,
        stop: &Stop,
    ) -> Result<Self, BenchError> {
        let [stock, candidate, status] = [free_port()?, free_port()?, free_port()?];
        let conf = dir.join("nginx.conf");
        let text = configuration(
            dir,
            root,
            [stock, candidate],
            servers,
            Kind { keep, finish_all },
            status,
        );
        fs::write(&conf, text).map_err(BenchError::file("write", &conf))?;
        let mut command = Command::new(nginx);
        // Before the configuration is read, nginx writes to a compiled-in log; `-e` names ours instead.
        command
            .arg("-e")
            .arg(dir.join("nginx.log"))
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&conf);
        let process = Process::spawn(command, &dir.join("nginx.output"), Signal::TERM)?;
        let mut nginx = Self {
            process,
            stock,
            candidate,
            status,
            status_asked: 0,
        };
        nginx.wait_ready(stop)?;
        Ok(nginx)
    }

    /// Where it serves this side.
    pub fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Stock => self.stock.into(),
            Side::Candidate => self.candidate.into(),
        }
    }

    /// Fetches a page and looks for a text in it.
    ///
    /// # Errors
    /// [`BenchError::Answer`] if it is not there.
    pub fn check(&self, side: Side, path: &str, expect: &str) -> Result<(), BenchError> {
        let answer =
            get(self.address(side), path).map_err(BenchError::system(format!("GET {path} from nginx")))?;
        let ok = answer.starts_with("HTTP/1.1 200 ") && answer.contains(expect);
        let found = || answer.chars().take(300).collect();
        let from = || format!("nginx in front of the {} server", side.name());
        if ok {
            Ok(())
        } else {
            Err(BenchError::Answer {
                from: from(),
                path: path.to_owned(),
                found: found(),
            })
        }
    }

    /// Waits until no request is under way, and returns how many there were since the start, our own questions
    /// for this number left out.
    ///
    /// # Errors
    /// It stays busy.
    pub fn requests_when_idle(&mut self, stop: &Stop) -> Result<u64, BenchError> {
        let deadline = Instant::now() + IDLE_LIMIT;
        loop {
            let status = self.ask_status()?;
            // The one that is being written is the answer with this status.
            if status.reading == 0 && status.writing <= 1 {
                return Ok(status.requests.saturating_sub(self.status_asked));
            }
            if Instant::now() > deadline {
                return Err(BenchError::TimedOut {
                    what: "idle nginx".to_owned(),
                    limit: IDLE_LIMIT,
                });
            }
            stop.pause(RETRY)?;
        }
    }

    fn ask_status(&mut self) -> Result<Status, BenchError> {
        let answer = get(self.status.into(), "/").map_err(BenchError::system("ask nginx for its status"))?;
        self.status_asked += 1;
        parse_status(&answer).ok_or_else(|| {
            self.process
                .fault(format!("has a status that is not understood: {answer}"))
        })
    }

    fn wait_ready(&mut self, stop: &Stop) -> Result<(), BenchError> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect_timeout(&self.status.into(), HTTP_LIMIT).is_err() {
            if stop.wait(self.process.pidfd().as_fd(), RETRY)? == Waited::Ready {
                return Err(self.process.fault("ended while starting"));
            }
            if Instant::now() > deadline {
                return Err(self
                    .process
                    .fault(format!("does not listen within {START_LIMIT:?}")));
            }
        }
        Ok(())
    }
}

/// How connections are used.
#[derive(Clone, Copy)]
struct Kind {
    /// Connections to the servers are kept.
    keep: bool,
    /// Requests whose client is gone are finished.
    finish_all: bool,
}

fn configuration(
    dir: &Path,
    root: &Path,
    ports: [SocketAddrV4; 2],
    servers: [&Address; 2],
    kind: Kind,
    status: SocketAddrV4,
) -> String {
    let dir = dir.display();
    let user = if rustix::process::geteuid().is_root() {
        "user www-data;"
    } else {
        ""
    };
    let Kind { keep, finish_all } = kind;
    let finish_all = if finish_all { "on" } else { "off" };
    let kept = if keep { "keepalive 32;" } else { "" };
    let keep_conn = if keep { "on" } else { "off" };
    let mut text = format!(
        "{user}
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_time 1h;
  client_body_temp_path {dir}/nginx-body;
  fastcgi_temp_path {dir}/nginx-fastcgi;
  proxy_temp_path {dir}/nginx-proxy;
  uwsgi_temp_path {dir}/nginx-uwsgi;
  scgi_temp_path {dir}/nginx-scgi;
  server {{ listen {status}; location = / {{ stub_status; }} }}
"
    );
    for ((port, server), side) in ports.iter().zip(servers).zip(Side::BOTH) {
        let name = side.name();
        let server = match server {
            Address::Unix(path) => format!("unix:{}", path.display()),
            Address::Tcp(address) => address.to_string(),
        };
        let params = PARAMS
            .iter()
            .map(|(name, value)| format!("      fastcgi_param {name} {value};\n"));
        text += &format!(
            "  upstream {name} {{ server {server} max_fails=0; {kept} }}
  server {{
    listen {port};
    root {};
    location / {{
      fastcgi_pass {name};
      fastcgi_index index.php;
      fastcgi_keep_conn {keep_conn};
      fastcgi_ignore_client_abort {finish_all};
      fastcgi_next_upstream off;
      fastcgi_buffers 32 16k;
{}    }}
  }}
",
            root.display(),
            params.collect::<String>(),
        );
    }
    text + "}\n"
}

/// Debian's `/etc/nginx/fastcgi_params` (nginx 1.22) and SCRIPT_FILENAME.
const PARAMS: [(&str, &str); 20] = [
    ("QUERY_STRING", "$query_string"),
    ("REQUEST_METHOD", "$request_method"),
    ("CONTENT_TYPE", "$content_type"),
    ("CONTENT_LENGTH", "$content_length"),
    ("SCRIPT_NAME", "$fastcgi_script_name"),
    ("REQUEST_URI", "$request_uri"),
    ("DOCUMENT_URI", "$document_uri"),
    ("DOCUMENT_ROOT", "$document_root"),
    ("SERVER_PROTOCOL", "$server_protocol"),
    ("REQUEST_SCHEME", "$scheme"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/$nginx_version"),
    ("REMOTE_ADDR", "$remote_addr"),
    ("REMOTE_PORT", "$remote_port"),
    ("REMOTE_USER", "$remote_user"),
    ("SERVER_ADDR", "$server_addr"),
    ("SERVER_PORT", "$server_port"),
    ("SERVER_NAME", "$server_name"),
    ("REDIRECT_STATUS", "200"),
    ("SCRIPT_FILENAME", "$document_root$fastcgi_script_name"),
];

/// The whole answer to one GET, headers included. The connection is closed by the server.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_PAGE_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The page of ngx_http_stub_status_module, headers before it allowed.
fn parse_status(text: &str) -> Option<Status> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with("server accepts"));
    lines.next()?;
    let requests = lines.next()?.split_whitespace().nth(2)?.parse().ok()?;
    let mut words = lines.next()?.split_whitespace();
    let mut field = |name: &str| (words.next()? == name).then(|| words.next()?.parse().ok())?;
    Some(Status {
        requests,
        reading: field("Reading:")?,
        writing: field("Writing:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_is_read() {
        let text = "HTTP/1.1 200 OK\r\n\r\nActive connections: 291 \nserver accepts handled requests\n \
                    16630948 16630947 31070465 \nReading: 6 Writing: 179 Waiting: 106 \n";
        assert_eq!(
            parse_status(text),
            Some(Status {
                requests: 31_070_465,
                reading: 6,
                writing: 179
            })
        );
        assert_eq!(parse_status("server accepts handled requests\n 1 2\n"), None);
        assert_eq!(parse_status(""), None);
    }
}
