//! Responses that the front makes itself, and the one body type that all responses share.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};

/// A response on its way out, whatever makes its body.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>>;

/// A short plain text page. `text` tells what went wrong, without a final newline.
pub(super) fn text(status: StatusCode, text: &str) -> Reply {
    let body = Full::from(format!("{status}: {text}\n"))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    reply
}

/// Sends the client elsewhere for good. `location` is percent-encoded ASCII.
pub(super) fn redirect(location: &str) -> Reply {
    let mut reply = text(StatusCode::MOVED_PERMANENTLY, location);
    match HeaderValue::from_str(location) {
        Ok(value) => {
            reply.headers_mut().insert(LOCATION, value);
            reply
        }
        Err(_) => text(
            StatusCode::BAD_REQUEST,
            "the address cannot be put into a Location header",
        ),
    }
}

/// Refuses the method and names those that are allowed.
pub(super) fn method_not_allowed(allowed: &'static str) -> Reply {
    let mut reply = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "use one of the methods that the Allow header names",
    );
    reply
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
