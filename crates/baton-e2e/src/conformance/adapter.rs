//! How supervisors that are no simple prefix are asked to run one program as PID 1 and to end with it, each in
//! the way that its documentation gives for containers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// baton-boot with a stop limit: a settings file, which goes before the command. It ends with the program, as
/// it does by itself without a file.
pub fn baton_boot(folder: &Path, limit: Duration) -> anyhow::Result<Vec<String>> {
    let drain = limit.as_millis();
    let settings = format!("service = \"conformance\"\n[run]\ndrain = \"{drain}ms\"\non_exit = \"exit\"\n");
    let path = write(folder, "baton.toml", &settings)?;
    Ok(vec!["--settings".into(), path])
}

/// The signals that `.s6-svscan` can have a script for, with what tells `s6-svc` to send them. TERM is left
/// out: by itself it stops the services and then s6-svscan.
const S6_SIGNALS: [(&str, &str); 6] =
    [("HUP", "-h"), ("INT", "-i"), ("QUIT", "-q"), ("USR1", "-1"), ("USR2", "-2"), ("WINCH", "-y")];

/// s6-svscan: a scan directory with one service. Its `finish` writes down how the program ended and brings
/// everything down, the `finish` of s6-svscan ends with that code, and scripts pass signals on.
pub fn s6(folder: &Path, program: &[String], limit: Option<Duration>) -> anyhow::Result<Vec<String>> {
    let scan = folder.join("scan");
    let (service, own) = (scan.join("app"), scan.join(".s6-svscan"));
    for folder in [&service, &own] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // s6-supervise runs it in the service's folder; a program expects the one that its init was started in.
    let started_in = quoted(&[path_text(folder)?]);
    let run = format!("#!/bin/sh\ncd {started_in}\nexec {}\n", quoted(program));
    script(&service, "run", &run)?;
    let finish = "#!/bin/sh\nif [ \"$1\" = 256 ]; then code=$((128 + $2)); else code=$1; fi\n\
                  echo \"$code\" > ../code\nexec s6-svscanctl -t ..\n";
    script(&service, "finish", finish)?;
    script(&own, "finish", "#!/bin/sh\nread -r code < code && exit \"$code\"\n")?;
    for (name, option) in S6_SIGNALS {
        script(&own, &format!("SIG{name}"), &format!("#!/bin/sh\nexec s6-svc {option} app\n"))?;
    }
    script(&own, "SIGPWR", "#!/bin/sh\nexec kill -PWR \"$(s6-svstat -o pid app)\"\n")?;
    if let Some(limit) = limit {
        write(&service, "timeout-kill", &format!("{}\n", limit.as_millis()))?;
    }
    Ok(vec![path_text(&scan)?])
}

/// supervisord: one program, and an event listener that ends supervisord when the program has, as there is no
/// setting for that.
pub fn supervisord(
    folder: &Path,
    program: &[String],
    limit: Option<Duration>,
) -> anyhow::Result<Vec<String>> {
    let pid_file = path_text(&folder.join("supervisord.pid"))?;
    let command = quoted(program).replace('%', "%%");
    // In whole seconds; ten is its default.
    let stop_wait = limit.map_or(10, |limit| limit.as_secs().max(1));
    let config = format!(
        "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n\
         pidfile={pid_file}\nminfds=256\n\
         [program:app]\ncommand={command}\nautorestart=false\nstartsecs=0\nstartretries=0\n\
         stopwaitsecs={stop_wait}\nkillasgroup=true\n\
         stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n\
         stderr_logfile=/dev/fd/2\nstderr_logfile_maxbytes=0\n\
         [eventlistener:end]\ncommand=sh -c 'echo READY; read line; kill -TERM 1'\n\
         events=PROCESS_STATE_EXITED,PROCESS_STATE_FATAL\n"
    );
    Ok(vec!["--configuration".into(), write(folder, "supervisord.conf", &config)?])
}

/// A command as a shell reads it.
fn quoted(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    path_text(&path)
}

fn script(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = write(folder, name, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn path_text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("the folder for temporary files has a name that is not a text")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_quoted_so_that_a_shell_gives_it_back() {
        let words =
            ["printf".to_owned(), "%s|".into(), "it's".into(), "a  b".into(), String::new(), "$x".into()];
        let output = std::process::Command::new("sh").args(["-c", &quoted(&words)]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "it's|a  b||$x|");
    }
}
