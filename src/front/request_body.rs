//! The body of a request, on its way to PHP.
//!
//! CGI wants to know the length beforehand. A body that came with a Content-Length is passed on as it arrives,
//! so an upload takes no memory and PHP's own limits decide. A chunked body goes to an unnamed temporary file
//! first.

use std::io::{self, SeekFrom};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

use super::BODY_PAUSE;

/// Most bytes of a body whose length is not known beforehand.
pub(super) const MAX_SPOOL_BYTES: u64 = 1 << 30;
/// Bytes read from the temporary file at a time.
const READ_BYTES: usize = 64 * 1024;

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// The client still sends it.
    Streamed { incoming: Incoming, bytes: u64 },
    /// It has been received.
    Spooled { file: File, bytes: u64 },
}

/// The body cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the client sent nothing of the request body for {} s", BODY_PAUSE.as_secs())]
    Silent,
    #[error("cannot receive the request body (did the client go away?)")]
    Receive(#[source] hyper::Error),
    #[error("the request body is longer than {MAX_SPOOL_BYTES} bytes, and came without a Content-Length")]
    TooLong,
    #[error("cannot keep the request body in a temporary file (is the file system of TMPDIR full?)")]
    Spool(#[from] io::Error),
}

impl RequestBody {
    /// Makes a body with a known length of what the client sends; receives all of it if need be.
    ///
    /// # Errors
    /// Any [`BodyError`].
    pub(super) async fn prepare(mut incoming: Incoming) -> Result<Self, BodyError> {
        if let Some(bytes) = incoming.size_hint().exact() {
            return Ok(Self::Streamed { incoming, bytes });
        }
        let mut file = File::from_std(tempfile::tempfile()?);
        let mut bytes = 0;
        while let Some(part) = receive(&mut incoming).await? {
            bytes += part.len() as u64;
            if bytes > MAX_SPOOL_BYTES {
                return Err(BodyError::TooLong);
            }
            file.write_all(&part).await?;
        }
        file.seek(SeekFrom::Start(0)).await?;
        Ok(Self::Spooled { file, bytes })
    }

    /// Length of the whole body.
    pub(super) fn bytes(&self) -> u64 {
        match *self {
            Self::Streamed { bytes, .. } | Self::Spooled { bytes, .. } => bytes,
        }
    }

    /// The next part, never empty; `None` at the end.
    ///
    /// # Errors
    /// Any [`BodyError`] but [`BodyError::TooLong`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self {
            Self::Streamed { incoming, .. } => receive(incoming).await,
            Self::Spooled { file, .. } => {
                let mut part = vec![0; READ_BYTES];
                let length = file.read(&mut part).await?;
                part.truncate(length);
                Ok((length > 0).then(|| part.into()))
            }
        }
    }
}

impl BodyError {
    /// What to tell the client, if it still listens.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Silent => StatusCode::REQUEST_TIMEOUT,
            Self::Receive(_) => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Spool(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The next data that the client sends; trailers are passed over.
async fn receive(incoming: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    loop {
        let Some(frame) = timeout(BODY_PAUSE, incoming.frame())
            .await
            .map_err(|_| BodyError::Silent)?
        else {
            return Ok(None);
        };
        match frame.map_err(BodyError::Receive)?.into_data() {
            Ok(data) if !data.is_empty() => return Ok(Some(data)),
            Ok(_) | Err(_) => {}
        }
    }
}
