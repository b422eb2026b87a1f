//! Answers one request: asks the router, then sends a file, runs a script, or says why not.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode, Version};
use tower_http::services::ServeFile;

use super::params::{Connection, params};
use super::reply::{Reply, method_not_allowed, redirect, text};
use super::request_body::RequestBody;
use super::route::{Kind, Route, Script, route};
use super::upstream::{Exchange, UpstreamError};

/// What is served, for all connections.
#[derive(Debug)]
pub(super) struct Site {
    /// Document root, absolute, without symbolic links.
    pub(super) root: PathBuf,
    /// Unix socket of the pool.
    pub(super) fastcgi: PathBuf,
}

impl Site {
    /// Always has an answer; errors are answers too.
    pub(super) async fn answer(&self, request: Request<Incoming>, connection: Connection) -> Reply {
        if let Some(refusal) = refusal(&request) {
            return refusal;
        }
        match route(request.uri().path(), &self.root, probe) {
            Route::Static(file) => send_file(&file, request).await,
            Route::Script(script) => self.run_script(&script, request, connection).await,
            Route::AddSlash(path) => redirect(&match request.uri().query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            }),
            Route::NoIndex => text(
                StatusCode::FORBIDDEN,
                "this directory has no index.php and no index.html",
            ),
            Route::NotFound => text(StatusCode::NOT_FOUND, "there is nothing here"),
            Route::Refused(reason) => text(StatusCode::BAD_REQUEST, reason),
        }
    }

    async fn run_script(&self, script: &Script, request: Request<Incoming>, connection: Connection) -> Reply {
        self.php_response(script, request, connection).await.unwrap_or_else(|error| {
            let status = error.status();
            let error = format!("{:#}", anyhow::Error::from(error));
            if status.is_server_error() {
                tracing::warn!(script = %script.file.display(), error, "no answer from PHP");
            } else {
                tracing::debug!(script = %script.file.display(), error, "the request did not arrive whole");
            }
            text(status, &error)
        })
    }

    async fn php_response(
        &self,
        script: &Script,
        request: Request<Incoming>,
        connection: Connection,
    ) -> Result<Reply, UpstreamError> {
        let (parts, incoming) = request.into_parts();
        let body = RequestBody::prepare(incoming).await?;
        let length = Some(body.bytes()).filter(|&bytes| bytes > 0);
        let params = params(&parts, script, &self.root, connection, length);
        let exchange = Exchange::start(&self.fastcgi, params, body).await?;
        let (head, body) = exchange.head().await?;

        let bodiless = parts.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut reply = Response::new(if bodiless {
            body.discard().await?;
            Empty::new().map_err(|never| match never {}).boxed_unsync()
        } else {
            body.boxed_unsync()
        });
        *reply.status_mut() = head.status;
        *reply.headers_mut() = head.headers;
        Ok(reply)
    }
}

/// Rules that hold for every path.
fn refusal(request: &Request<Incoming>) -> Option<Reply> {
    // RFC 9112 section 3.2: exactly one, since HTTP/1.1.
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() > Version::HTTP_10) {
        return Some(text(
            StatusCode::BAD_REQUEST,
            "the request needs exactly one Host header",
        ));
    }
    // TRACE would read cookies back to scripts that must not see them; CONNECT asks for a proxy.
    matches!(*request.method(), Method::TRACE | Method::CONNECT)
        .then(|| method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
}

/// One stat(2), on the event loop's thread, as web servers do it: it is answered from the kernel's cache.
fn probe(path: &Path) -> Kind {
    match path.metadata() {
        Ok(found) if found.is_file() => Kind::File,
        Ok(found) if found.is_dir() => Kind::Directory,
        Ok(_) | Err(_) => Kind::Nothing,
    }
}

/// Sends a file with its type, and answers ranges and conditions.
async fn send_file(file: &Path, request: Request<Incoming>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match ServeFile::new(file).try_call(request).await {
        Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot send a file");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("cannot read the file: {error}"),
            )
        }
    }
}
