//! `glasspool completion SHELL`: a completion script for that shell, made from the
//! command line's own definition.

use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  glasspool completion bash > /etc/bash_completion.d/glasspool
  glasspool completion zsh > /usr/share/zsh/site-functions/_glasspool
  glasspool completion fish > ~/.config/fish/completions/glasspool.fish";

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionArguments {
    /// The shell
    shell: Shells,
}

/// Those whose scripts are installed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shells {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn print(arguments: &CompletionArguments, say: impl Fn(&str)) -> ExitCode {
    let shell = match arguments.shell {
        Shells::Bash => Shell::Bash,
        Shells::Zsh => Shell::Zsh,
        Shells::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(shell, &mut command, "glasspool", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shells::Bash, Shells::Zsh, Shells::Fish] {
            let said = RefCell::new(String::new());
            print(&CompletionArguments { shell }, |text| {
                said.borrow_mut().push_str(text)
            });
            let script = said.into_inner();
            assert!(script.contains("serve") && script.contains("reload"), "{shell:?}");
        }
    }
}
