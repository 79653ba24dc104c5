//! Kinds of servers that people run: one row each. The guides have more of each.

use crate::signal::Signal;

use super::seen::Process;

/// What is known of a kind of server.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// What people call it.
    pub name: &'static str,
    /// The page about it in `docs/guides`.
    pub guide: Option<&'static str>,
    /// By which words of its command line it is known, in this order.
    words: &'static [&'static str],
    /// The signal at which it finishes what it has.
    pub stop_signal: Signal,
    /// It finishes what it has in processes of its own, which drop that when they are asked to stop themselves.
    pub asked_alone: bool,
    /// What keeps it from becoming a daemon.
    pub foreground: &'static str,
    /// What to do where it cuts running requests.
    pub finish: &'static str,
    /// What to do where it closes connections under requests that are on their way.
    pub last_request: &'static str,
    /// What to do where it waits for connections that have never sent anything.
    pub silent: &'static str,
}

/// What helps a program of which nothing else is known.
const FINISH: &str = "let it stop accepting at the stop signal, finish what it has accepted, and then exit";
const LAST_REQUEST: &str = "answer a last request with `Connection: close` before closing a kept connection";
const RETRY: &str =
    "it has no setting for that; HTTP clients send such a request again if it may be sent twice";
const FOREGROUND: &str = "run it in the foreground: leave out its option to become a daemon";
const NOT_FOR_PRODUCTION: &str =
    "it is a server for development: take one for production, or a bake longer than the longest request";

const OTHER: Kind = Kind {
    name: "a program",
    guide: None,
    words: &[],
    stop_signal: Signal::TERM,
    asked_alone: false,
    foreground: FOREGROUND,
    finish: FINISH,
    last_request: LAST_REQUEST,
    silent: "close connections without a request some seconds after the stop signal",
};

/// The first that fits is taken, so what runs others comes last.
const KINDS: [Kind; 18] = [
    Kind {
        name: "gunicorn",
        guide: Some("gunicorn.md"),
        words: &["gunicorn"],
        foreground: "leave out --daemon",
        finish: "raise --graceful-timeout above the longest request, and run.drain a second above that",
        last_request: "take --worker-class gthread, which waits for a last request",
        ..OTHER
    },
    Kind {
        name: "uvicorn",
        guide: Some("uvicorn.md"),
        words: &["uvicorn"],
        finish: "leave out --timeout-graceful-shutdown, or raise it above the longest request",
        last_request: RETRY,
        ..OTHER
    },
    Kind {
        name: "Puma",
        guide: Some("puma.md"),
        words: &["puma"],
        foreground: "leave out daemonize and --daemon",
        finish: "leave out force_shutdown_after, or raise it above the longest request",
        last_request: RETRY,
        ..OTHER
    },
    Kind {
        name: "nginx",
        guide: Some("nginx.md"),
        words: &["nginx"],
        stop_signal: Signal::QUIT,
        foreground: "write `daemon off;` in its configuration",
        finish: "raise worker_shutdown_timeout above the longest request",
        last_request: RETRY,
        ..OTHER
    },
    Kind {
        name: "PHP-FPM",
        guide: Some("php-fpm.md"),
        words: &["php-fpm"],
        stop_signal: Signal::QUIT,
        foreground: "run it with --nodaemonize",
        finish: "write process_control_timeout = 30s under [global]",
        ..OTHER
    },
    Kind { name: "uWSGI", words: &["uwsgi"], foreground: "leave out --daemonize", ..OTHER },
    Kind {
        name: "Unicorn",
        words: &["unicorn"],
        stop_signal: Signal::QUIT,
        foreground: "leave out -D",
        ..OTHER
    },
    Kind {
        name: "HAProxy",
        words: &["haproxy"],
        stop_signal: Signal::USR1,
        foreground: "leave out -D and `daemon`",
        ..OTHER
    },
    Kind { name: "Celery", guide: Some("celery.md"), words: &["celery"], asked_alone: true, ..OTHER },
    Kind { name: "Sidekiq", guide: Some("sidekiq.md"), words: &["sidekiq"], ..OTHER },
    Kind {
        name: "Flask's development server",
        guide: Some("flask.md"),
        words: &["flask", "run"],
        finish: NOT_FOR_PRODUCTION,
        ..OTHER
    },
    Kind {
        name: "Django's development server",
        guide: Some("django.md"),
        words: &["manage.py", "runserver"],
        finish: NOT_FOR_PRODUCTION,
        ..OTHER
    },
    Kind {
        name: "PHP's built-in server",
        guide: Some("php.md"),
        words: &["php", "-S"],
        finish: NOT_FOR_PRODUCTION,
        ..OTHER
    },
    Kind {
        name: "Node",
        guide: Some("node.md"),
        words: &["node"],
        finish: "write process.on('SIGTERM', () => server.close()), or copy drain.js of the guide",
        last_request: "copy drain.js of the guide: it lets kept connections send a last request",
        silent: "copy drain.js of the guide: it closes them after 5 s",
        ..OTHER
    },
    Kind {
        name: "Bun",
        words: &["bun"],
        finish: "write process.on('SIGTERM', () => server.stop())",
        ..OTHER
    },
    Kind {
        name: "Deno",
        words: &["deno"],
        finish: "write Deno.addSignalListener('SIGTERM', () => server.shutdown())",
        ..OTHER
    },
    Kind {
        name: "Java",
        guide: Some("java.md"),
        words: &["java"],
        finish: "add a shutdown hook that stops the server and waits for running requests (Spring Boot: \
                 server.shutdown=graceful)",
        last_request: "let the hook answer with `Connection: close` for a second before it stops the server",
        ..OTHER
    },
    Kind {
        name: "Python",
        words: &["python"],
        finish: "handle SIGTERM: stop accepting, join what is under way, then exit (ThreadingHTTPServer: \
                 server.shutdown() in a thread, daemon_threads = False)",
        ..OTHER
    },
];

/// How many words of a command line can name a program: an interpreter, its options, a script and its command.
const WORDS_MAX: usize = 8;

/// What is known of a program by its processes; the first row that any of them fits.
pub fn kind_of(processes: &[Process]) -> &'static Kind {
    let fits = |kind: &&Kind| processes.iter().any(|process| is(process, kind));
    KINDS.iter().find(fits).unwrap_or(&OTHER)
}

fn is(process: &Process, kind: &Kind) -> bool {
    // What renames itself writes all into one word: `nginx: master process`.
    let words = process.words.iter().flat_map(|word| word.split_ascii_whitespace()).take(WORDS_MAX);
    let mut names = words.map(base);
    kind.words.iter().all(|wanted| names.any(|name| name == *wanted))
}

/// The name of a program in a word such as `/usr/sbin/php-fpm8.2`, `gunicorn:` or `server.py`.
fn base(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word);
    name.trim_end_matches(|c: char| c == ':' || c == '.' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    #[test]
    fn a_server_is_known_by_its_command_line() {
        for (line, name) in [
            ("gunicorn: master [app:app]", "gunicorn"),
            ("/usr/bin/python3 /usr/bin/gunicorn --workers 2 app:app", "gunicorn"),
            ("python3 -m gunicorn app:app", "gunicorn"),
            ("/usr/bin/python3.11 /usr/local/bin/uvicorn app:app", "uvicorn"),
            ("puma 5.6.5 (tcp://127.0.0.1:8080) [shop]", "Puma"),
            ("nginx: master process nginx -p /tmp", "nginx"),
            ("php-fpm: master process (php-fpm.conf)", "PHP-FPM"),
            ("/usr/sbin/php-fpm8.2 --nodaemonize", "PHP-FPM"),
            ("php -S 127.0.0.1:8080 index.php", "PHP's built-in server"),
            ("php artisan queue:work", "a program"),
            ("/usr/bin/python3 /usr/bin/celery --app tasks worker", "Celery"),
            ("python3 manage.py runserver 8000", "Django's development server"),
            ("python3 -m flask run", "Flask's development server"),
            ("node server.js", "Node"),
            ("/opt/jdk/bin/java -jar shop.jar", "Java"),
            ("python3 server.py", "Python"),
            ("./server --node east", "a program"),
            ("", "a program"),
        ] {
            let process = Process { name: String::new(), words: line.split(' ').map(String::from).collect() };
            assert_eq!(kind_of(&[process]).name, name, "{line}");
            // As a program that sets its own title shows it: one word with spaces.
            let titled = Process { name: String::new(), words: vec![line.into()] };
            assert_eq!(kind_of(&[titled]).name, name, "{line}");
        }
    }

    #[test]
    fn every_guide_that_is_named_is_there() {
        let guides = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides");
        for guide in KINDS.iter().filter_map(|kind| kind.guide) {
            assert!(guides.join(guide).is_file(), "{guide}");
        }
    }

    #[test]
    fn what_is_run_by_an_interpreter_is_known_before_the_interpreter() {
        let process = |line: &str| Process { name: "x".into(), words: vec![line.into()] };
        let both = [process("python3 run.py"), process("gunicorn: worker")];
        assert_eq!(kind_of(&both).name, "gunicorn");
    }
}
