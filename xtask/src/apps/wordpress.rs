//! WordPress as its users use it: sign in, comment, upload.

use anyhow::{Context as _, Result, ensure};

use super::http::{Client, short};
use super::traced::Caller;
use crate::report::Report;

/// 20 MB, and not a repetition that could hide bytes out of place.
pub(super) fn large_text() -> Vec<u8> {
    const BYTES: usize = 20 << 20;
    let mut text = Vec::with_capacity(BYTES + 16);
    let mut line = 0_u32;
    while text.len() < BYTES {
        text.extend(format!("line {line:>9}\n").into_bytes());
        line += 1;
    }
    text
}

/// Signs in, posts a comment, and uploads 20 MB.
pub(super) fn check(client: &mut Client, report: &mut Report) -> Result<()> {
    sign_in(client, report)?;
    comment(client, report)?;
    upload(client, report)
}

fn sign_in(client: &mut Client, report: &mut Report) -> Result<()> {
    client.get("/wp-login.php")?;
    let fields = [
        ("log", "admin"),
        ("pwd", "admin"),
        ("testcookie", "1"),
        ("redirect_to", "/wp-admin/"),
    ];
    let reply = client.post("/wp-login.php", &fields)?;
    report.equal("wordpress: login answers with a redirect", 302, reply.status);
    let dashboard = client.get("/wp-admin/index.php")?;
    report.contains(
        "wordpress: the dashboard is there after login",
        "id=\"dashboard-widgets",
        &dashboard.text(),
    );
    Ok(())
}

fn comment(client: &mut Client, report: &mut Report) -> Result<()> {
    let found = client.get("/wp-json/wp/v2/posts?slug=sample-post-5")?.json()?;
    let id = found[0]["id"]
        .as_u64()
        .context("sample-post-5 has no id")?
        .to_string();
    // The same comment twice is refused.
    let text = format!("A comment with the mark {}", Caller::new().trace);
    let reply = client.post(
        "/wp-comments-post.php",
        &[("comment", &text), ("comment_post_ID", &id)],
    )?;
    report.equal(
        "wordpress: a comment's form answers with a redirect",
        302,
        reply.status,
    );
    let page = client.get("/sample-post-5/")?;
    let there = page.text().contains(&text);
    report.check(
        "wordpress: the comment is on the page",
        there,
        &text,
        "no such text",
    );
    Ok(())
}

fn upload(client: &mut Client, report: &mut Report) -> Result<()> {
    let nonce = client.get("/wp-admin/admin-ajax.php?action=rest-nonce")?.text();
    ensure!(nonce.len() < 32, "no nonce but {}", short(&nonce));
    let headers = [("x-wp-nonce", nonce.as_str())];
    let file = large_text();
    let reply = client.upload(
        "/wp-json/wp/v2/media",
        &headers,
        &[],
        ("file", "large.txt", &file),
    )?;
    report.equal("wordpress: a 20 MB upload is created", 201, reply.status);
    let media = reply.json()?;
    let (Some(url), Some(id)) = (media["source_url"].as_str(), media["id"].as_u64()) else {
        anyhow::bail!("the upload's answer names no file: {}", short(&reply.text()));
    };
    let path = url
        .find("/wp-content")
        .map(|at| &url[at..])
        .context("the file is not below wp-content")?;
    let stored = client.get(path)?;
    let (expected, found) = (
        format!("{} bytes", file.len()),
        format!("{} bytes", stored.body.len()),
    );
    report.check(
        "wordpress: the upload is stored byte by byte",
        stored.body == file,
        expected,
        found,
    );
    let gone = client.send(
        "DELETE",
        &format!("/wp-json/wp/v2/media/{id}?force=true"),
        &headers,
        Vec::new(),
    )?;
    report.equal("wordpress: the upload can be deleted", 200, gone.status);
    Ok(())
}
