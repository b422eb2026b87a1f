//! MediaWiki through its API: sign in, edit a page, upload a file.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::http::{Client, short};
use super::traced::Caller;
use super::wordpress::large_text;
use crate::report::Report;

/// Settings over the site's own: uploads on, text files allowed. The pool names them in
/// `MW_CONFIG_FILE`, so that the site stays as it was provisioned.
pub(super) fn settings(docroot: &Path) -> String {
    let own = docroot.join("LocalSettings.php");
    format!(
        "<?php\nrequire '{}';\n$wgEnableUploads = true;\n$wgFileExtensions = ['txt'];\n",
        own.display()
    )
}

/// Signs in, edits a page, and uploads 20 MB.
pub(super) fn check(client: &mut Client, report: &mut Report) -> Result<()> {
    let login = token(client, "login")?;
    let fields = [
        ("action", "clientlogin"),
        ("format", "json"),
        ("username", "Admin"),
        ("password", "a-test-password"),
        ("loginreturnurl", "http://localhost/"),
        ("logintoken", &login),
    ];
    let reply = client.post("/api.php", &fields)?;
    report.contains("mediawiki: login", "\"status\":\"PASS\"", &reply.text());

    let csrf = token(client, "csrf")?;
    let text = format!("An edit with the mark {}", Caller::new().trace);
    let fields = [
        ("action", "edit"),
        ("format", "json"),
        ("title", "Edited page"),
        ("text", &text),
        ("token", &csrf),
    ];
    let reply = client.post("/api.php", &fields)?;
    report.contains("mediawiki: an edit", "\"result\":\"Success\"", &reply.text());
    let page = client.get("/wiki/Edited_page")?.text();
    let there = page.contains(&text);
    report.check("mediawiki: the edit is on the page", there, &text, "no such text");

    let file = large_text();
    let fields = [
        ("action", "upload"),
        ("format", "json"),
        ("filename", "Large.txt"),
        ("ignorewarnings", "1"),
        ("token", &csrf),
    ];
    let reply = client.upload("/api.php", &[], &fields, ("file", "large.txt", &file))?;
    let text = reply.text();
    // The second run on the same site uploads what is there already.
    if text.contains("fileexists-no-change") {
        report.contains(
            "mediawiki: a 20 MB upload is compared with the one before",
            "no-change",
            &text,
        );
    } else {
        report.contains("mediawiki: a 20 MB upload", "\"result\":\"Success\"", &text);
        let info = reply.json()?;
        let size = info["upload"]["imageinfo"]["size"].as_u64();
        report.equal(
            "mediawiki: the upload has its size",
            Some(file.len() as u64),
            size,
        );
    }
    Ok(())
}

fn token(client: &mut Client, kind: &str) -> Result<String> {
    let reply = client.get(&format!(
        "/api.php?action=query&meta=tokens&type={kind}&format=json"
    ))?;
    let token = reply.json()?["query"]["tokens"][format!("{kind}token")]
        .as_str()
        .map(str::to_owned);
    token.with_context(|| format!("no {kind} token in {}", short(&reply.text())))
}
