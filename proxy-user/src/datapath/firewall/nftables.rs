//! Messages of nfnetlink about chains and rules of nftables, as far as Ferrule has to read them.

use serde::Serialize;
use std::fmt;

/// What a chain of nftables is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub name: String,
}

/// A chain of nftables that is attached to a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether forwarded packets pass it.
    pub forwards: bool,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// Families of tables that forwarded packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    const ALL: [Self; 3] = [Self::Ip, Self::Ip6, Self::Inet];

    /// As the kernel has it (NFPROTO_*).
    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

/// What a datagram says of the list that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// There is more to come.
    More,
    /// It is the last one.
    End,
    /// The kernel refuses, for this reason (errno).
    Error(i32),
    /// It makes no sense.
    Broken,
}

/// NFNL_SUBSYS_NFTABLES, the upper half of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
/// NLMSG_ERROR and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// NLM_F_REQUEST and NLM_F_DUMP.
const LIST: u16 = 0x301;
/// Lengths of the headers of netlink and of nfnetlink.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// NFTA_CHAIN_*.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
/// NFTA_HOOK_HOOKNUM, and NF_INET_FORWARD.
const HOOK_NUMBER: u16 = 1;
const FORWARD: u32 = 2;
/// NFTA_RULE_*.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
/// NFTA_EXPR_*.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE; NFTA_TARGET_NAME.
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const TARGET_NAME: u16 = 1;
/// NF_DROP, as policy and as verdict.
const DROP: u32 = 0;

/// Asks for all chains.
pub(super) fn ask_chains() -> Vec<u8> {
    request(GET_CHAIN, 0, &[])
}

/// Asks for the rules of a chain.
pub(super) fn ask_rules(chain: &Chain) -> Vec<u8> {
    let names = [(RULE_TABLE, &chain.table), (RULE_CHAIN, &chain.name)];
    let mut attributes = Vec::new();
    for (kind, name) in names {
        let length = (ATTRIBUTE_HEADER + name.len() + 1) as u16;
        attributes.extend(length.to_ne_bytes());
        attributes.extend(kind.to_ne_bytes());
        attributes.extend(name.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    request(GET_RULE, chain.family.number(), &attributes)
}

fn request(kind: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + FAMILY_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(LIST.to_ne_bytes());
    // Sequence number and port: the kernel knows the port.
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Whether a datagram is the last of its list.
pub(super) fn end(datagram: &[u8]) -> Reply {
    let mut reply = Reply::Broken;
    for (kind, content) in messages(datagram) {
        // What an error begins with; it is zero in what is none.
        let code = content
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        reply = match kind {
            ERROR if code == 0 => Reply::More,
            ERROR => return Reply::Error(code.saturating_neg()),
            DONE => return Reply::End,
            _ => Reply::More,
        };
    }
    reply
}

/// The chains of a datagram that are attached to hooks.
pub(super) fn chains(datagram: &[u8]) -> impl Iterator<Item = Chain> {
    described(datagram).filter_map(chain)
}

/// The names of all chains of a datagram.
pub(super) fn names(datagram: &[u8]) -> impl Iterator<Item = Name> {
    described(datagram).filter_map(name)
}

fn described(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let messages = messages(datagram).filter(|(kind, _)| *kind == NEW_CHAIN);
    messages.map(|(_, content)| content)
}

fn name(content: &[u8]) -> Option<Name> {
    let (header, attributes) = content.split_at_checked(FAMILY_HEADER)?;
    let family = Family::ALL
        .into_iter()
        .find(|it| it.number() == header[0])?;
    Some(Name {
        family,
        table: text(find(attributes, CHAIN_TABLE)?),
        name: text(find(attributes, CHAIN_NAME)?),
    })
}

fn chain(content: &[u8]) -> Option<Chain> {
    let Name {
        family,
        table,
        name,
    } = name(content)?;
    let attributes = content.get(FAMILY_HEADER..)?;
    let hook = find(attributes, CHAIN_HOOK)?;
    Some(Chain {
        family,
        table,
        name,
        forwards: find(hook, HOOK_NUMBER).and_then(number) == Some(FORWARD),
        drops: find(attributes, CHAIN_POLICY).and_then(number) == Some(DROP),
    })
}

/// Whether the last rule of these datagrams refuses whatever comes to it.
pub(super) fn last_rule_refuses(datagrams: &[Vec<u8>]) -> bool {
    let messages = datagrams.iter().flat_map(|it| messages(it));
    let rules = messages.filter(|(kind, _)| *kind == NEW_RULE);
    rules.last().is_some_and(|(_, rule)| refuses(rule))
}

/// Whether a rule says nothing of the packets that it is for, and refuses them.
fn refuses(rule: &[u8]) -> bool {
    let content = rule.get(FAMILY_HEADER..).unwrap_or_default();
    let list = find(content, RULE_EXPRESSIONS).unwrap_or_default();
    let named = attributes(list).filter_map(|(_, expression)| {
        let name = text(find(expression, EXPRESSION_NAME)?);
        Some((name, expression))
    });
    let mut others = named.filter(|(name, _)| !matches!(name.as_str(), "counter" | "log"));
    let first = others.next();
    first.is_some_and(|(name, expression)| is_refusal(&name, expression))
}

fn is_refusal(name: &str, expression: &[u8]) -> bool {
    let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
    match name {
        "reject" => true,
        "immediate" => {
            let verdict = find(data, IMMEDIATE_DATA).and_then(|it| find(it, DATA_VERDICT));
            let code = verdict
                .and_then(|it| find(it, VERDICT_CODE))
                .and_then(number);
            code == Some(DROP)
        }
        // An extension of iptables.
        "target" => {
            let target = find(data, TARGET_NAME).map(text);
            matches!(target.as_deref(), Some("REJECT" | "DROP"))
        }
        _ => false,
    }
}

/// Type and content of each message.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = u32::from_ne_bytes(*length) as usize;
        let kind = u16::from_ne_bytes(*after.first_chunk()?);
        let content = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// Type and content of each attribute.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    // Whether it is nested, or in network order.
    const FLAGS: u16 = 0xc000;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*after.first_chunk()?) & !FLAGS;
        let content = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, content)| (kind == wanted).then_some(content))
}

/// Ends at the first zero.
fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Numbers of nftables are in network order.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|it| u32::from_be_bytes(*it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = (ATTRIBUTE_HEADER + content.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn named(kind: u16, name: &str) -> Vec<u8> {
        attribute(kind, format!("{name}\0").as_bytes())
    }

    fn message(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = (HEADER + content.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(content);
        bytes
    }

    fn chain_message(family: u8, hook: u32, policy: u32) -> Vec<u8> {
        let content = [
            vec![family, 0, 0, 0],
            named(CHAIN_TABLE, "firewalld"),
            named(CHAIN_NAME, "filter_FORWARD"),
            attribute(
                CHAIN_HOOK | 0x8000,
                &attribute(HOOK_NUMBER, &hook.to_be_bytes()),
            ),
            attribute(CHAIN_POLICY, &policy.to_be_bytes()),
        ];
        message(NEW_CHAIN, &content.concat())
    }

    fn expression(name_of: &str, data: &[u8]) -> Vec<u8> {
        let content = [
            named(EXPRESSION_NAME, name_of),
            attribute(EXPRESSION_DATA, data),
        ];
        attribute(1, &content.concat())
    }

    fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
        let list = attribute(RULE_EXPRESSIONS, &expressions.concat());
        message(NEW_RULE, &[vec![1, 0, 0, 0], list].concat())
    }

    fn verdict(code: u32) -> Vec<u8> {
        let verdict = attribute(VERDICT_CODE, &code.to_be_bytes());
        expression(
            "immediate",
            &attribute(IMMEDIATE_DATA, &attribute(DATA_VERDICT, &verdict)),
        )
    }

    #[test]
    fn chains_that_drop_what_is_forwarded_are_told_from_others() {
        let datagram = [
            chain_message(1, FORWARD, DROP),
            chain_message(2, FORWARD, 1),
            chain_message(10, 1, DROP),
            chain_message(7, FORWARD, DROP),
        ];
        let found: Vec<Chain> = chains(&datagram.concat()).collect();
        let of = |family, forwards, drops| Chain {
            family,
            table: "firewalld".into(),
            name: "filter_FORWARD".into(),
            forwards,
            drops,
        };
        let expected = [
            of(Family::Inet, true, true),
            of(Family::Ip, true, false),
            of(Family::Ip6, false, true),
        ];
        assert_eq!(found, expected, "bridges are another matter");
    }

    #[test]
    fn a_last_rule_for_all_packets_is_as_good_as_a_policy() {
        let refuses = |rules: &[Vec<u8>]| last_rule_refuses(&[rules.concat()]);
        let (counter, matching) = (expression("counter", &[]), expression("cmp", &[]));
        let reject = expression("reject", &[]);
        assert!(refuses(&[rule(&[counter.clone(), reject.clone()])]));
        assert!(refuses(&[rule(&[verdict(1)]), rule(&[verdict(DROP)])]));
        assert!(!refuses(&[rule(&[verdict(DROP)]), rule(&[verdict(1)])]));
        assert!(!refuses(&[rule(&[matching, reject])]));
        let target = expression("target", &named(TARGET_NAME, "REJECT"));
        assert!(refuses(&[rule(&[target])]));
        assert!(!refuses(&[rule(&[counter])]));
        assert!(!refuses(&[]));
    }

    #[test]
    fn a_list_ends_with_its_last_message_or_an_error() {
        let done = message(DONE, &[0; 4]);
        assert_eq!(end(&done), Reply::End);
        let some = chain_message(1, FORWARD, DROP);
        assert_eq!(end(&some), Reply::More);
        assert_eq!(end(&[some, done].concat()), Reply::End);
        let refused = message(ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(end(&refused), Reply::Error(libc::EPERM));
        assert_eq!(end(&[1, 2, 3]), Reply::Broken);
    }

    #[test]
    fn no_bytes_are_too_broken() {
        let whole = [chain_message(1, FORWARD, DROP), rule(&[verdict(DROP)])].concat();
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let _ = (
                chains(cut).count(),
                end(cut),
                last_rule_refuses(&[cut.to_vec()]),
            );
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0xff;
            let _ = (chains(&damaged).count(), end(&damaged));
            let _ = last_rule_refuses(&[damaged]);
        }
    }
}
