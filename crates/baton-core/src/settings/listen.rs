//! `[[run.listen]]`: where the program accepts connections.

use alloc::format;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::table::Table;
use super::{socket_options, value};
use crate::run::{Address, BACKLOG_DEFAULT, Handover, Listen, MODE_DEFAULT, Proxy, SocketOptions};

const PROXY: Handover =
    Handover::Proxy(Proxy { max_connections: None, proxy_protocol: false, close_hint: false });
const HANDOVER: [(&str, Handover); 3] =
    [("auto", Handover::Auto), ("inherit", Handover::Inherit), ("proxy", PROXY)];
/// More than this a process cannot have open.
const MAX_CONNECTIONS_MAX: u32 = 1_000_000;

/// Stands where an address is wrong or missing, so that the rest can be read; settings with it are refused.
const NOWHERE: Address = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

/// The listeners, if the table says any.
pub(super) fn read(run: &mut Table<'_, '_>) -> Option<Vec<Listen>> {
    let mut listeners: Vec<Listen> = Vec::new();
    run.tables("listen", |table| {
        let listener = read_one(table);
        report_double(table, &listener, &listeners);
        listeners.push(listener);
    })?;
    Some(listeners)
}

fn read_one(table: &mut Table<'_, '_>) -> Listen {
    let name = table.required("name", value::listener, "write a name, such as name = \"http\"");
    let address = table.required("address", value::address, "write one, such as address = \"0.0.0.0:8080\"");
    let mut listener = Listen {
        name: name.unwrap_or_default(),
        address: address.unwrap_or(NOWHERE),
        mode: MODE_DEFAULT,
        handover: Handover::Auto,
        backlog: BACKLOG_DEFAULT,
        options: SocketOptions::default(),
        per_worker: false,
    };
    table.set("handover", &mut listener.handover, value::one_of(&HANDOVER));
    table.set("mode", &mut listener.mode, value::permissions("0660"));
    if table.has("mode") && listener.address.port().is_some() && listener.address != NOWHERE {
        let fix = "leave it out, or write an address such as \"unix:/run/app.sock\"";
        table.wrong("mode", "is for Unix sockets", fix);
    }
    table.set("backlog", &mut listener.backlog, value::whole(1..=u32::from(u16::MAX)));
    table.set("per_worker", &mut listener.per_worker, value::boolean);
    report_indivisible(table, &mut listener);
    let mut proxy = Proxy::default();
    table.set("max_connections", &mut proxy.max_connections, |value| {
        value::whole(1..=MAX_CONNECTIONS_MAX)(value).map(Some)
    });
    table.set("proxy_protocol", &mut proxy.proxy_protocol, value::boolean);
    table.set("close_hint", &mut proxy.close_hint, value::boolean);
    match &mut listener.handover {
        Handover::Proxy(place) => *place = proxy,
        Handover::Auto | Handover::Inherit => report_proxy_only(table),
    }
    socket_options::read(table, &mut listener);
    listener
}

/// Copies can have a queue each only where the kernel spreads connections over several sockets.
fn report_indivisible(table: &mut Table<'_, '_>, listener: &mut Listen) {
    if !listener.per_worker || listener.is_divisible() || listener.address == NOWHERE {
        return;
    }
    if listener.handover.passes_socket() {
        let is = "is for listeners with a port: the path of a Unix socket leads to one socket";
        table.wrong("per_worker", is, "leave it out, or write an address such as \"0.0.0.0:8080\"");
    } else {
        let is = "is for listeners whose sockets programs get, and this one has handover = \"proxy\"";
        table.wrong("per_worker", is, "leave it out, or write handover = \"auto\"");
    }
    listener.per_worker = false;
}

fn report_proxy_only(table: &mut Table<'_, '_>) {
    for key in ["max_connections", "proxy_protocol", "close_hint"] {
        if table.has(key) {
            let fix = "write handover = \"proxy\", or leave it out";
            table.wrong(key, "is for listeners with handover = \"proxy\"", fix);
        }
    }
}

fn report_double(table: &mut Table<'_, '_>, listener: &Listen, others: &[Listen]) {
    let (name, address) = (&listener.name, &listener.address);
    if !name.is_empty() && others.iter().any(|other| other.name == *name) {
        table.wrong(
            "name",
            format!("is {name:?} for the second time"),
            "give each listener a name of its own",
        );
    }
    if *address != NOWHERE && others.iter().any(|other| other.address == *address) {
        let is = format!("is \"{address}\" for the second time");
        let fix = match address {
            Address::Tcp(_) => "give each listener a port of its own",
            Address::Unix(_) => "give each listener a path of its own",
        };
        table.wrong("address", is, fix);
    }
}
