//! `hcf schema`, `man` and `completions`: what the types and the command line say of themselves.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Failure, exit, print};
use crate::cli::Cli;
use crate::config::File;
use crate::serve;

pub(super) fn schema(api: bool) -> Result<u8, Failure> {
    let text = if api {
        serde_json::to_string_pretty(&serve::openapi())
    } else {
        serde_json::to_string_pretty(&schemars::schema_for!(File))
    };
    let text = text.map_err(anyhow::Error::from)?;
    print(&format!("{text}\n"))?;
    Ok(exit::OK)
}

pub(super) fn man(dir: Option<&Path>) -> Result<u8, Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(anyhow::Error::from)?;
        print(&String::from_utf8_lossy(&page))?;
        return Ok(exit::OK);
    };
    let written = clap_mangen::generate_to(Cli::command(), dir)
        .and_then(|()| std::fs::write(dir.join("hcf.yaml.5"), configuration()));
    written.with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
    Ok(exit::OK)
}

/// The page of the configuration: the commented default one says every key.
fn configuration() -> String {
    let mut page = format!(
        ".TH hcf.yaml 5 \"\" \"hcf {}\"\n\
         .SH NAME\nhcf.yaml \\- the configuration of hcf\n\
         .SH DESCRIPTION\nEvery key with its default. hcf(1) reads it by \\fB\\-c\\fR FILE, or by \\fB\\-i\\fR NAME from \
         /etc/hcf/NAME.yaml; \\fBhcf check\\fR says what is wrong with one, and \\fBhcf schema\\fR prints its JSON Schema.\n\
         .PP\n.nf\n",
        env!("CARGO_PKG_VERSION")
    );
    for line in include_str!("../../deploy/hcf.yaml").lines() {
        // A dot or a quote at the start of a line would be a request, a backslash an escape, a hyphen a dash.
        page.push_str("\\&");
        page.push_str(&line.replace('\\', "\\e").replace('-', "\\-"));
        page.push('\n');
    }
    page + ".fi\n.SH SEE ALSO\nhcf(1)\n"
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hcf", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(exit::OK)
}
