//! One FastCGI exchange: a request to PHP, and the response as it comes.
//!
//! Each request has its own connection, closed as soon as END_REQUEST has come or nobody wants the answer any
//! more: dropping an [`Exchange`] is how a client's disconnect reaches PHP. Both directions run at the same time,
//! because PHP may answer before it has read the body, and each waits for its slower end.

use std::io::{self, Stderr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use glasspool_fastcgi::client::{Event, RequestEncoder, ResponseReader};
use glasspool_fastcgi::{ProtocolError, ProtocolStatus, Role};
use http_body::Frame;
use hyper::StatusCode;
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::head::{Head, HeadError, HeadReader};
use super::request_body::{BodyError, RequestBody};
use super::stderr_lines::StderrLines;

/// The only request on a connection.
const REQUEST_ID: u16 = 1;
/// Bytes read from PHP at a time; a FastCGI record has at most 65535.
const READ_BYTES: usize = 64 * 1024;

/// PHP gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("cannot connect to the pool at {} (is it running?)", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the pool at {} takes no more connections: its backlog is full", socket.display())]
    Busy { socket: PathBuf },
    #[error("cannot read PHP's response")]
    Read(#[source] io::Error),
    #[error("PHP closed the connection before the end of its response (was the worker killed?)")]
    Closed,
    #[error("PHP refused the request with FastCGI protocol status {0:?}")]
    Refused(ProtocolStatus),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// A request that PHP is working on.
pub(super) struct Exchange {
    reader: OwnedReadHalf,
    decoder: ResponseReader,
    stderr: StderrLines<Stderr>,
    request: Sending,
    buf: Vec<u8>,
    /// What has been read and not been decoded, in `buf`.
    start: usize,
    end: usize,
}

/// The request's way out.
enum Sending {
    InProgress(Pin<Box<dyn Future<Output = Result<OwnedWriteHalf, BodyError>> + Send>>),
    /// All is sent. The half is kept, because dropping it would shut the connection down for writing, which
    /// may be taken for a client that has gone away.
    Done(#[expect(dead_code, reason = "kept to keep the socket open")] OwnedWriteHalf),
}

/// The rest of a response, as an HTTP body.
pub(super) struct ResponseBody {
    /// What came together with the head.
    first: Bytes,
    exchange: Exchange,
}

impl Exchange {
    /// Connects to the pool and starts to send `params` and `body`.
    ///
    /// # Errors
    /// [`UpstreamError::Connect`] and [`UpstreamError::Busy`].
    pub(super) async fn start<N, V>(
        socket: &Path,
        params: impl IntoIterator<Item = (N, V)>,
        body: RequestBody,
    ) -> Result<Self, UpstreamError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut head = Vec::with_capacity(2048);
        RequestEncoder::begin(&mut head, REQUEST_ID, Role::Responder, false);
        RequestEncoder::params(&mut head, REQUEST_ID, params);
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| match source.kind() {
                // connect(2) to a unix socket does not wait for a place in the backlog if it is non-blocking.
                io::ErrorKind::WouldBlock => UpstreamError::Busy {
                    socket: socket.to_owned(),
                },
                _ => UpstreamError::Connect {
                    socket: socket.to_owned(),
                    source,
                },
            })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader,
            decoder: ResponseReader::new(),
            stderr: StderrLines::new(io::stderr()),
            request: Sending::InProgress(Box::pin(send(writer, head, body))),
            buf: vec![0; READ_BYTES],
            start: 0,
            end: 0,
        })
    }

    /// Waits for the response head. The rest is the body.
    ///
    /// # Errors
    /// Any [`UpstreamError`] but the two of [`Exchange::start`].
    pub(super) async fn head(mut self) -> Result<(Head, ResponseBody), UpstreamError> {
        let mut reader = HeadReader::default();
        while let Some(mut part) = self.next().await? {
            if let Some((head, length)) = reader.feed(&part)? {
                let first = part.split_off(length);
                return Ok((
                    head,
                    ResponseBody {
                        first,
                        exchange: self,
                    },
                ));
            }
        }
        Err(reader.truncated().into())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next part of the response, never empty; `None` when PHP has ended the request.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        self.poll_sending(cx)?;
        loop {
            while self.start < self.end {
                let input = &self.buf[self.start..self.end];
                let fed = self.decoder.feed(input)?;
                self.start += fed.consumed;
                match fed.event {
                    Some(Event::Stdout(range)) => {
                        return Poll::Ready(Ok(Some(Bytes::copy_from_slice(&input[range]))));
                    }
                    Some(Event::Stderr(range)) => self.stderr.push(&input[range]),
                    Some(Event::End(end)) => return Poll::Ready(ended(end.protocol_status)),
                    // Answers to questions that we have not asked.
                    Some(Event::Values(_) | Event::UnknownType(_)) | None => {}
                }
            }
            let mut buf = ReadBuf::new(&mut self.buf);
            ready!(Pin::new(&mut self.reader).poll_read(cx, &mut buf)).map_err(UpstreamError::Read)?;
            (self.start, self.end) = (0, buf.filled().len());
            if self.end == 0 {
                return Poll::Ready(Err(UpstreamError::Closed));
            }
        }
    }

    fn poll_sending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if let Sending::InProgress(sending) = &mut self.request
            && let Poll::Ready(sent) = sending.as_mut().poll(cx)
        {
            self.request = Sending::Done(sent?);
        }
        Ok(())
    }
}

impl ResponseBody {
    /// Lets PHP finish a response that has no body in HTTP: closing now would abort the script.
    ///
    /// # Errors
    /// As [`Exchange::head`].
    pub(super) async fn discard(mut self) -> Result<(), UpstreamError> {
        while self.exchange.next().await?.is_some() {}
        Ok(())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        let next = ready!(this.exchange.poll_next(cx)).map_err(anyhow::Error::from);
        if let Err(error) = &next {
            // Too late for a status: the client sees a response that is cut.
            tracing::warn!(error = format!("{error:#}"), "a response was cut");
        }
        Poll::Ready(
            next.map(|part| part.map(Frame::data))
                .map_err(Into::into)
                .transpose(),
        )
    }
}

impl UpstreamError {
    /// What to tell the client when nothing of the response has been sent.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Busy { .. } | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect { .. } | Self::Read(_) | Self::Closed | Self::Protocol(_) | Self::Head(_) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Body(error) => error.status(),
        }
    }
}

fn ended(status: ProtocolStatus) -> Result<Option<Bytes>, UpstreamError> {
    match status {
        ProtocolStatus::RequestComplete => Ok(None),
        refused => Err(UpstreamError::Refused(refused)),
    }
}

/// Sends the whole request. The head goes out with the first part of the body, or with the end of an empty one, so
/// that a small request is one write here and one read there.
///
/// PHP may stop reading when it has what it wants; that is no error, its answer counts.
async fn send(
    mut writer: OwnedWriteHalf,
    head: Vec<u8>,
    mut body: RequestBody,
) -> Result<OwnedWriteHalf, BodyError> {
    let mut buf = head;
    loop {
        let part = body.next().await?;
        match &part {
            Some(part) => RequestEncoder::stdin(&mut buf, REQUEST_ID, part),
            None => RequestEncoder::stdin_end(&mut buf, REQUEST_ID),
        }
        let written = writer.write_all(&buf).await;
        if let Err(error) = &written {
            tracing::debug!(%error, "PHP does not read the rest of the request");
        }
        if part.is_none() || written.is_err() {
            return Ok(writer);
        }
        buf.clear();
    }
}
