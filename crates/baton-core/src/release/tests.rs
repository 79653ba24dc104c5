//! A manifest and its text are the same thing, in both directions.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::run::SocketOptions;
use crate::run::secrets::{Keep, Pinned, Reference, Secrets};
use crate::run::{
    Address, Inherited, MODE_DEFAULT, Progress, Recycle, SizeLimit, StatusRange, Stdin, WORKERS_MAX,
};
use crate::run::{
    Format, Handover, HealthCheck, HttpProbe, Listen, OnExit, Output, Probe, Process, Proxy, Ready,
};
use crate::signal::Signal;
use crate::units::{Bytes, Millis, Share};

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,6}", "[^\\x00]{0,8}", "[\"\\\\\n\t ]{0,4}"]
}

fn any_command() -> impl Strategy<Value = Vec<String>> {
    ("[^\\x00]{1,8}", vec(any_text(), 0..4)).prop_map(|(program, mut rest)| {
        rest.insert(0, program);
        rest
    })
}

fn any_socket_options() -> impl Strategy<Value = SocketOptions> {
    let time = || prop::option::of(any::<u64>().prop_map(Millis));
    let size = || prop::option::of(any::<u64>().prop_map(Bytes));
    let all = (any::<Option<bool>>(), time(), time(), time(), size(), size());
    all.prop_map(|(nodelay, keepalive, defer_accept, user_timeout, rcvbuf, sndbuf)| SocketOptions {
        nodelay,
        keepalive,
        defer_accept,
        user_timeout,
        rcvbuf,
        sndbuf,
    })
}

fn any_listen() -> impl Strategy<Value = Vec<Listen>> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    let limit = proptest::option::of(1u32..);
    let proxy = (limit, any::<(bool, bool)>());
    let proxy = proxy.prop_map(|(max_connections, (proxy_protocol, close_hint))| {
        Handover::Proxy(Proxy { max_connections, proxy_protocol, close_hint })
    });
    let handover = prop_oneof![Just(Handover::Auto), Just(Handover::Inherit), proxy];
    let tcp = (ip, 1..=u16::MAX);
    let tcp = tcp.prop_map(|(ip, port)| (Address::Tcp(SocketAddr::new(ip, port)), MODE_DEFAULT));
    let unix = ("/[a-z \"/]{0,9}[a-z]", 0..=0o777u16);
    let unix = unix.prop_map(|(path, mode)| (Address::Unix(path.parse().unwrap()), mode));
    let one = (prop_oneof![tcp, unix], any::<u16>(), handover, any_socket_options());
    btree_map("[a-z .\"]{1,6}", one, 0..3).prop_map(|all| {
        let listen = |(name, ((address, mode), backlog, handover, options))| {
            let shared = Listen { name, address, mode, handover, backlog, options, per_worker: false };
            Listen { per_worker: shared.is_divisible() && backlog % 2 == 0, ..shared }
        };
        all.into_iter().map(listen).collect()
    })
}

fn any_http() -> impl Strategy<Value = HttpProbe> {
    let status =
        (100u16..=599, 100u16..=599).prop_map(|(a, b)| StatusRange::new(a.min(b), a.max(b)).unwrap());
    let status = prop_oneof![Just(Vec::from([StatusRange::DEFAULT])), vec(status, 1..4)];
    let headers = btree_map("[A-Za-z-]{1,5}", "[ -~]{0,6}", 0..3);
    let more = (prop::option::of("[a-z.]{1,9}"), prop::option::of(any_text()));
    ("/[!-~]{0,9}", status, headers, more).prop_map(|(path, status, headers, (host, body))| HttpProbe {
        path,
        status,
        headers: headers.into_iter().collect(),
        host,
        body,
    })
}

fn any_health(listen: &[Listen]) -> BoxedStrategy<Option<HealthCheck>> {
    if listen.is_empty() {
        return Just(None).boxed();
    }
    let names: Vec<String> = listen.iter().map(|listen| listen.name.clone()).collect();
    let probe = prop_oneof![
        Just(Probe::Tcp),
        any_http().prop_map(Probe::Http),
        any_text().prop_map(|service| Probe::Grpc { service }),
        any_command().prop_map(|command| Probe::Exec { command }),
    ];
    let numbers = any::<(u64, u64, u32, u32)>();
    let health = (probe, prop::sample::select(names), numbers);
    let health = health.prop_map(|(probe, listener, (interval, timeout, failures, successes))| HealthCheck {
        listener: probe.connects().then_some(listener),
        probe,
        interval: Millis(interval),
        timeout: Millis(timeout),
        failures,
        successes,
    });
    prop::option::of(health).boxed()
}

fn any_process() -> impl Strategy<Value = Process> {
    let owner = || prop::option::of("[a-z0-9\"]{1,6}");
    let numbers = (
        prop::option::of(0..=0o777u16),
        prop::option::of(-20..=19i8),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        -1000..=1000i16,
    );
    let size = || {
        let bytes = any::<u64>().prop_map(|bytes| SizeLimit::Bytes(Bytes(bytes)));
        prop::option::of(prop_oneof![Just(SizeLimit::Unlimited), bytes])
    };
    let sizes = (size(), size(), size());
    let given = (any::<bool>(), prop::option::of("(/[a-z\" ]{1,4}){1,3}"));
    (owner(), owner(), numbers, sizes, given).prop_map(|(user, group, numbers, sizes, (stdin, mount))| {
        let (core, memlock, stack) = sizes;
        let (umask, nice, nofile, nproc, oom_score_adj) = numbers;
        let stdin = if stdin { Stdin::Inherit } else { Stdin::Null };
        Process { user, group, umask, nice, nofile, nproc, core, memlock, stack, oom_score_adj, stdin, mount }
    })
}

fn any_output() -> impl Strategy<Value = Output> {
    let default = Output::default();
    let format = prop::sample::select(Vec::from([Format::Raw, Format::Json, Format::Inherit]));
    let line_max = prop_oneof![Just(default.line_max), any::<u64>().prop_map(Bytes)];
    let stall = prop_oneof![Just(default.stall), any::<u64>().prop_map(Millis)];
    (format, line_max, stall).prop_map(|(format, line_max, stall)| Output { format, line_max, stall })
}

fn any_watched() -> impl Strategy<Value = (Option<Progress>, (Option<Recycle>, Option<Bytes>), Inherited)> {
    let progress = ("[^\\x00]{1,8}", any::<u64>());
    let progress = progress.prop_map(|(file, within)| Progress { file, within: Millis(within) });
    let share = (0..=1_000_000u32).prop_map(|ppm| Recycle::Share(Share::from_ppm(ppm).unwrap()));
    let recycle = prop_oneof![share, any::<u64>().prop_map(|bytes| Recycle::Bytes(Bytes(bytes)))];
    let only =
        prop::collection::btree_set("[A-Z_]{1,4}\\*?", 0..4).prop_map(|only| only.into_iter().collect());
    let inherited = prop::option::of(only).prop_map(|only| Inherited { only });
    let needs = any::<Option<u64>>().prop_map(|needs| needs.map(Bytes));
    (prop::option::of(progress), (prop::option::of(recycle), needs), inherited)
}

fn any_secrets() -> impl Strategy<Value = Secrets> {
    let own = prop_oneof!["file:/[!-~]{1,9}", "env:[A-Z]{1,4}"];
    let own = own.prop_map(|text| Pinned::from(text.parse::<Reference>().unwrap()));
    let kept = prop_oneof![
        "s3://b/[a-z/.]{1,9}",
        "aws-secretsmanager:[a-z/]{1,9}#[a-z\"]{1,4}",
        "aws-ssm:/[a-z]{1,4}"
    ];
    let kept = (kept, prop::option::of("[!-~]{1,40}"))
        .prop_map(|(text, version)| Pinned { version, ..text.parse::<Reference>().unwrap().into() });
    let pinned = prop_oneof![own, kept];
    let from = vec(pinned.clone(), 0..3);
    let env = btree_map("[A-Z]{1,3}", pinned, 0..3);
    (from, env, prop_oneof![Just(Keep::Memory), Just(Keep::Disk)]).prop_map(|(from, env, keep)| Secrets {
        from,
        env: env.into_iter().collect(),
        keep,
    })
}

fn any_run() -> impl Strategy<Value = RunSettings> {
    let with_health = any_listen().prop_flat_map(|listen| (any_health(&listen), Just(listen)));
    let words = (any::<bool>(), any::<bool>(), any::<bool>(), 1..=64_i32);
    let numbers = any::<(u64, u64, Option<u64>, u32, u8)>();
    let worker = (prop::option::of(1..=64_i32), any::<(Option<u64>, Option<u64>, Option<u64>)>());
    let env = btree_map("[^=\\x00]{1,6}", any_text(), 0..4);
    let given = (env, any_output(), any_process(), any_watched(), any_secrets());
    (any_command(), with_health, words, (numbers, worker), given).prop_map(
        |(command, (health, listen), words, (numbers, worker), (env, output, process, watched, secrets))| {
            let (progress, (recycle, needs), inherited) = watched;
            let (quiesce_signal, (quiesce, watchdog, keep_warm)) = worker;
            // Any share that is not nothing.
            let split = keep_warm.map(|time| Share::from_ppm(1 + (time % 1_000_000) as u32).unwrap());
            let (overlap, ready, on_exit, signal) = words;
            let (startup, drain, tree, max_restarts, relaunch_exit_code) = numbers;
            RunSettings {
                command,
                workers: 1 + max_restarts % WORKERS_MAX,
                listen: listen
                    .into_iter()
                    .map(|listen| Listen {
                        per_worker: listen.per_worker && max_restarts % WORKERS_MAX > 0,
                        ..listen
                    })
                    .collect(),
                overlap,
                ready: if ready { Ready::Probe } else { Ready::Notify },
                health,
                startup_timeout: Millis(startup),
                drain: Millis(drain),
                stop_tree_after: tree.map(Millis),
                stop_signal: Signal::from_number(signal).unwrap(),
                quiesce_signal: quiesce_signal.and_then(Signal::from_number),
                quiesce: quiesce.map(Millis),
                watchdog: watchdog.map(Millis),
                keep_warm: keep_warm.map(Millis),
                split,
                progress,
                on_exit: if on_exit { OnExit::Restart } else { OnExit::Exit },
                max_restarts,
                relaunch_exit_code,
                recycle,
                needs,
                process,
                output,
                inherited,
                env: env.into_iter().collect(),
                secrets,
            }
        },
    )
}

fn any_kind() -> impl Strategy<Value = EntryKind> {
    let chunk = (any::<[u8; 32]>(), 1..=CHUNK_BYTES_MAX);
    let chunk = chunk.prop_map(|(id, bytes)| Chunk { id: ChunkId::from_bytes(id), bytes });
    let file = (any::<bool>(), vec(chunk, 0..4));
    prop_oneof![
        Just(EntryKind::Dir),
        Just(EntryKind::Link { target: "/opt/a b".to_string() }),
        "[a-z. /]{0,5}[a-z]".prop_filter_map("leaves", |target| {
            let path: TreePath = "a".parse().unwrap();
            path.may_link_to(&target).is_ok().then_some(EntryKind::Link { target })
        }),
        file.prop_map(|(executable, chunks)| EntryKind::File(File { executable, chunks: chunks.into() })),
    ]
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop::sample::select(Vec::from(["a", "b", "a-b", "ä", "z z", ".c"]));
    let path = vec(name, 1..5).prop_map(|names| names.join("/"));
    btree_map(path, any_kind(), 0..12).prop_map(|wanted| {
        // Whatever lies beneath something makes that a directory.
        let mut all: BTreeMap<String, EntryKind> = wanted.clone();
        for path in wanted.keys() {
            for (slash, _) in path.match_indices('/') {
                all.insert(path[..slash].to_string(), EntryKind::Dir);
            }
        }
        let entry = |(path, kind): (String, EntryKind)| Entry { path: path.parse().unwrap(), kind };
        all.into_iter().map(entry).collect()
    })
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let commit =
        ("[0-9a-f]{40}|[0-9a-f]{64}", any::<bool>()).prop_map(|(hash, dirty)| Commit { hash, dirty });
    let provenance = (any::<u64>(), any_text(), prop::option::of(commit));
    let external = prop::option::of("/[a-z]{1,3}(/[a-z ]{1,3})?");
    ("[a-z][a-z0-9._-]{0,9}", provenance, any_run(), any_entries(), external).prop_map(
        |(service, (created, builder, commit), run, entries, more)| {
            let outside = |kind: &EntryKind| match kind {
                EntryKind::Link { target } => Some(target.clone()).filter(|target| target.starts_with('/')),
                EntryKind::Dir | EntryKind::File(_) => None,
            };
            let used = entries.iter().filter_map(|entry| outside(&entry.kind));
            // It may be one that no link can be allowed to lead to.
            let more = more.filter(|target| check_external(target).is_ok());
            let external = ExternalLinks::of(used.chain(more)).unwrap();
            Manifest {
                service: service.parse().unwrap(),
                provenance: Provenance { created, builder, commit },
                run,
                tree: Tree::reaching(external, entries).unwrap(),
            }
        },
    )
}

/// Another text, near to a right one.
fn damaged(text: &str, line: prop::sample::Index, how: u8, with: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let at = line.index(lines.len());
    let changed = match how % 5 {
        0 => lines.remove(at).to_string(),
        1 => format!("{}{with}", lines.remove(at)),
        2 => format!("{with}{}", lines.remove(at)),
        3 => lines.remove(at).replacen(' ', with, 1),
        _ => with.to_string(),
    };
    if !how.is_multiple_of(5) {
        lines.insert(at, &changed);
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

proptest! {
    #[test]
    fn every_manifest_is_read_back_from_its_text(manifest in any_manifest()) {
        let text = manifest.to_text();
        prop_assert_eq!(Manifest::parse(&text), Ok(manifest), "{}", text);
    }

    #[test]
    fn a_text_that_is_accepted_is_the_only_one_of_its_manifest(
        manifest in any_manifest(),
        line in any::<prop::sample::Index>(),
        how in any::<u8>(),
        with in prop_oneof![" ", "0", "\\+", "\\\\u\\{61\\}", "[ -~]{0,4}", "\r", "dir a", "\n"],
    ) {
        let text = damaged(&manifest.to_text(), line, how, &with);
        if let Ok(read) = Manifest::parse(&text) {
            prop_assert_eq!(read.to_text(), text);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(baton-manifest 1\n)?([a-z.]{1,12} [ -~\n\"]{0,20}\n?){0,12}") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn a_diff_names_what_changed_and_nothing_else(old in any_manifest(), new in any_manifest()) {
        prop_assert!(diff(&old, &old).is_empty());
        let there = diff(&old, &new);
        let back = diff(&new, &old);
        prop_assert_eq!((&there.added, &there.removed), (&back.removed, &back.added));
        prop_assert_eq!(there.settings.is_empty(), old.run == new.run);
        prop_assert_eq!(there.is_empty(), old.run == new.run && old.tree.entries() == new.tree.entries());
    }
}

#[test]
fn a_manifest_reads_as_documented() {
    let chunk = Chunk { id: ChunkId::from_bytes([7; 32]), bytes: 1042 };
    let entry = |path: &str, kind| Entry { path: path.parse().unwrap(), kind };
    let file = |executable, chunks| EntryKind::File(File { executable, chunks });
    let mut run = RunSettings::for_command(Vec::from(["python3".to_string(), "app.py".to_string()]));
    run.listen.push(Listen {
        name: "http".to_string(),
        address: "0.0.0.0:8080".parse().unwrap(),
        mode: MODE_DEFAULT,
        handover: Handover::Inherit,
        backlog: 4096,
        options: SocketOptions {
            nodelay: Some(true),
            rcvbuf: Some(Bytes(65_536)),
            ..SocketOptions::default()
        },
        per_worker: true,
    });
    run.workers = 4;
    run.listen.push(Listen {
        name: "local".to_string(),
        address: "unix:/run/a b.sock".parse().unwrap(),
        mode: 0o600,
        handover: Handover::Auto,
        backlog: 1,
        options: SocketOptions::default(),
        per_worker: false,
    });
    run.env.push(("GREETING".to_string(), "\"hi\"\n".to_string()));
    let manifest = Manifest {
        service: "web".parse().unwrap(),
        provenance: Provenance {
            created: 1_763_000_000_000,
            builder: "ci@build-7".to_string(),
            commit: Some(Commit {
                hash: "8843d7f92416211de9ebb963ff4ce28125932878".to_string(),
                dirty: false,
            }),
        },
        run,
        tree: Tree::of(Vec::from([
            entry("static", EntryKind::Dir),
            entry("static/app.js", file(false, [chunk].into())),
            entry("static/current", EntryKind::Link { target: "app.js".to_string() }),
            entry("tool", file(true, Chunks::new())),
        ]))
        .unwrap(),
    };
    let text = "\
baton-manifest 1
service web
created 1763000000000
builder \"ci@build-7\"
commit 8843d7f92416211de9ebb963ff4ce28125932878 clean
run.command \"python3\" \"app.py\"
run.workers 4
run.listen \"http\" 0.0.0.0:8080 inherit 4096 per_worker
run.listen.options yes - - - 65536 -
run.listen \"local\" unix \"/run/a b.sock\" 600 auto 1
run.overlap yes
run.ready probe
run.startup_timeout 60000
run.drain 30000
run.stop_signal 15
run.on_exit restart
run.max_restarts 10
run.relaunch_exit_code 86
run.env \"GREETING\" \"\\\"hi\\\"\\u{a}\"
limits 1042 4
dir static
file 1042 static/app.js
chunk 0707070707070707070707070707070707070707070707070707070707070707 1042
link static/current
to app.js
exec 0 tool
";
    assert_eq!(manifest.to_text(), text);
    assert_eq!(Manifest::parse(text), Ok(manifest.clone()));
    assert_eq!(manifest.id(), id_of(text));

    // Where links may lead outside is said before the first of them.
    let mut venv = manifest.clone();
    let to = "/usr/bin/python 3".to_string();
    let link = entry("python", EntryKind::Link { target: to.clone() });
    let external = ExternalLinks::of([to, "/opt".to_string()]).unwrap();
    venv.tree = Tree::reaching(external, Vec::from([link.clone()])).unwrap();
    let lines = "limits 0 1\nexternal /opt\nexternal /usr/bin/python 3\nlink python\nto /usr/bin/python 3\n";
    assert_eq!(venv.to_text(), text.split("limits").next().unwrap().to_string() + lines);
    assert_eq!(Manifest::parse(&venv.to_text()), Ok(venv.clone()));
    for (from, to) in [
        ("external /usr/bin/python 3\n", ""),
        ("external /opt\n", "external /opt/\n"),
        ("external /opt\n", "external /z\n"),
        ("external /opt\n", "external /opt\nexternal /opt\n"),
    ] {
        let damaged = venv.to_text().replace(from, to);
        assert!(Manifest::parse(&damaged).is_err(), "{damaged}");
    }
    assert!(Tree::of(Vec::from([link])).is_err());
    let told = diff(&Manifest { tree: Tree::of(Vec::new()).unwrap(), ..manifest.clone() }, &venv).settings;
    assert_eq!((told[0].key, told[0].new.len()), ("external", 2));

    // A release has references, and the versions that it was made with.
    let mut secret = manifest.clone();
    let pinned = |text: &str, version: Option<&str>| Pinned {
        version: version.map(ToString::to_string),
        ..text.parse::<Reference>().unwrap().into()
    };
    secret.run.secrets = Secrets {
        from: [pinned("s3://acme/web.json", None)].to_vec(),
        env: [("DB".to_string(), pinned("aws-secretsmanager:db#password", Some("v 1")))].to_vec(),
        keep: Keep::Disk,
    };
    let lines = "run.secrets.from \"s3://acme/web.json\"\n\
        run.secrets.env \"DB\" \"aws-secretsmanager:db#password\" \"v 1\"\nrun.secrets.keep disk\nlimits ";
    assert_eq!(secret.to_text(), text.replace("limits ", lines));
    for (from, to) in [
        ("s3://acme/web.json", "vault:x"),
        ("s3://acme/web.json\"", "file:/x\" \"1\""),
        ("\"v 1\"", "\"\""),
        ("keep disk", "keep memory"),
        ("env \"DB\"", "env \"D=\""),
    ] {
        let damaged = secret.to_text().replace(from, to);
        assert!(Manifest::parse(&damaged).is_err(), "{damaged}");
    }

    // What has no line is at its default, and only what is not has one.
    let mut spoken = manifest.clone();
    spoken.run.output = Output { format: Format::Json, line_max: Bytes::from_kib(16), stall: Millis(250) };
    let lines = "run.output.format json\nrun.output.line_max 16384\nrun.output.stall 250\nrun.env ";
    assert_eq!(spoken.to_text(), text.replace("run.env ", lines));
    let needless = text.replace("run.env ", "run.output.stall 1000\nrun.env ");
    let refused = Manifest::parse(&needless).unwrap_err();
    assert!(matches!(refused.what, Fault::Setting { key: "run.output.stall", .. }), "{refused}");

    let mut next = manifest.clone();
    next.run.drain = Millis(5000);
    let only = SettingChange {
        key: "run.drain",
        old: Vec::from(["30000".to_string()]),
        new: Vec::from(["5000".to_string()]),
    };
    assert_eq!(diff(&manifest, &next).settings, [only]);
}
