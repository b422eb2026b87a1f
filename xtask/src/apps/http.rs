//! A browser as small as the applications' forms allow: cookies, forms, uploads, and the
//! time an answer took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ureq::Agent;
use ureq::http::Request;

const TIME_LIMIT: Duration = Duration::from_secs(120);
const MOST_BYTES: u64 = 64 << 20;
const MOST_REDIRECTS: u32 = 5;
const BOUNDARY: &str = "-----------------------------glasspool-4f1c9d";

/// One visitor.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    cookies: BTreeMap<String, String>,
}

/// An answer that has been read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub location: Option<String>,
    pub body: Vec<u8>,
    /// From sending the request to the last byte.
    pub took: Duration,
    /// When the last byte was read.
    pub at: Instant,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, and no JSON: {}", self.status, short(&self.text())))
    }
}

impl Client {
    pub(super) fn new(base: &str) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIME_LIMIT));
        Client {
            agent: config.build().into(),
            base: base.to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// Sends one request; redirects are answers.
    pub(super) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            request = request.header("cookie", pairs.join("; "));
        }
        let started = Instant::now();
        // A request that has no body says so by having none, not by a length of zero.
        let response = if body.is_empty() && method == "GET" {
            self.agent.run(request.body(())?)
        } else {
            self.agent.run(request.body(body)?)
        };
        let mut response = response.with_context(|| format!("{method} {path}"))?;
        for cookie in response.headers().get_all("set-cookie") {
            self.keep_cookie(cookie.to_str().unwrap_or_default());
        }
        let header = response.headers().get("location");
        let location = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let body = body.with_context(|| format!("{method} {path}: the answer breaks off"))?;
        let at = Instant::now();
        let status = response.status().as_u16();
        Ok(Reply {
            status,
            location,
            body,
            took: at - started,
            at,
        })
    }

    /// Fetches a page, following redirects within the site.
    pub(super) fn get(&mut self, path: &str) -> Result<Reply> {
        let mut path = path.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let reply = self.send("GET", &path, &[], Vec::new())?;
            match &reply.location {
                Some(location) if (300..400).contains(&reply.status) => {
                    path = location.strip_prefix(&self.base).unwrap_or(location).to_owned();
                }
                _ => return Ok(reply),
            }
        }
        bail!("more than {MOST_REDIRECTS} redirects, the last to {path}")
    }

    /// Posts a form as a browser does.
    pub(super) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Reply> {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
            .collect();
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.send("POST", path, &[kind], pairs.join("&").into_bytes())
    }

    /// Posts a form with a file as a browser does.
    pub(super) fn upload(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        fields: &[(&str, &str)],
        (field, file, content): (&str, &str, &[u8]),
    ) -> Result<Reply> {
        let mut body = Vec::with_capacity(content.len() + 1024);
        for (name, value) in fields {
            let part =
                format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend(part.into_bytes());
        }
        let disposition = format!("content-disposition: form-data; name=\"{field}\"; filename=\"{file}\"");
        body.extend(
            format!("--{BOUNDARY}\r\n{disposition}\r\ncontent-type: text/plain\r\n\r\n").into_bytes(),
        );
        body.extend(content);
        body.extend(format!("\r\n--{BOUNDARY}--\r\n").into_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut all = vec![("content-type", kind.as_str())];
        all.extend(headers);
        self.send("POST", path, &all, body)
    }

    fn keep_cookie(&mut self, header: &str) {
        let pair = header.split(';').next().unwrap_or_default();
        let Some((name, value)) = pair.split_once('=') else {
            return;
        };
        match value.trim() {
            // How PHP and WordPress take a cookie back.
            "" | "deleted" | "%20" => self.cookies.remove(name),
            value => self.cookies.insert(name.to_owned(), value.to_owned()),
        };
    }
}

/// The beginning of a text, for messages.
pub(super) fn short(text: &str) -> String {
    text.chars().take(200).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
