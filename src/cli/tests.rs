//! The command line as a whole: that it is sound, and what its help says.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["pushyard"].iter().chain(words))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_says_what_it_always_said() {
    let mut command = Cli::command();
    command.build();
    insta::assert_snapshot!("help", command.render_help().to_string());
    for subcommand in command.get_subcommands_mut().filter(|found| found.get_name() != "help") {
        let name = subcommand.get_name().to_owned();
        insta::assert_snapshot!(format!("help_{name}"), subcommand.render_long_help().to_string());
    }
}

#[test]
fn global_options_stand_on_either_side_of_the_subcommand() {
    for words in [["--json", "check"], ["check", "--json"]] {
        assert!(parse(&words).unwrap().global.json);
    }
    let cli = parse(&["providers", "--admin-url", "https://admin.example.com/p"]).unwrap();
    assert_eq!(cli.global.admin_url.as_str(), "https://admin.example.com/p");
}

#[test]
fn a_slip_is_a_usage_error_with_the_nearest_word() {
    let cases = [
        (&["sevre"][..], ErrorKind::InvalidSubcommand, "'serve'"),
        (&["check", "--confg", "a"], ErrorKind::UnknownArgument, "'--config'"),
        (&["send", "--to", "apn:9f", "--title", "a"], ErrorKind::ValueValidation, "\"apns\""),
        (&["check", "--url", "127.0.0.1:8080"], ErrorKind::ValueValidation, "http://"),
    ];
    for (words, kind, hint) in cases {
        let error = parse(words).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{words:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn a_key_is_never_shown() {
    let cli = parse(&["check", "--key", "s3cr3t"]).unwrap();
    assert!(!format!("{cli:?}").contains("s3cr3t"));
}
