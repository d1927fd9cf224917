//! What the HDF5 reader reads through: the bytes of a region, under bounds.
//!
//! The reader (`hdf5-pure`) checks every structure by itself, but bounds neither its work nor its memory by the
//! length of the file: a node of a tree that is its own child, or a symbol table that gives one name of a
//! megabyte to ten thousand links, is followed for as long as it goes. It also passes over soft and external
//! links in silence, and does not say where a group lies. All of these show in what it reads:
//!
//! - every read costs, and the budget is a small multiple of the file's length ([`Guard::budget`]);
//! - one read is at most [`MAX_READ`] bytes, which bounds what a structure can hold, how deep types can nest
//!   in a header message, and the memory that counts in a structure can ask for. Only the names of a group's
//!   links may be longer, and copies of them cost, too;
//! - types are looked at as they pass by, in the messages of headers, so that the numbers of parts that they claim
//!   fit in them (`types.rs`); messages that are kept elsewhere than in headers are refused;
//! - links are looked at as they pass by: in the headers of groups and in symbol tables;
//! - the first read of a group's listing is its header, which tells two groups from one linked twice.
//!
//! Weights are not read through it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdf5_pure::{FormatError, Source};

use super::types;
use crate::map::Region;

/// The longest structure in bytes: the step in which the reader takes heaps. Groups as Keras writes them stay
/// below 600 bytes.
const MAX_READ: usize = 4096;

/// The longest names of the links of one group, in all.
const MAX_NAMES: u64 = 1 << 20;

/// What a read costs at least, in bytes.
const LEAST_COST: u64 = 64;

/// The most that reading the structures of one file may cost, in bytes. A tensor takes four to nine
/// thousand, most of it when every one has an attribute to look up.
const MAX_BUDGET: u64 = 64 << 20;

const OUTSIDE: Refusal = Refusal::Structure("a structure that does not lie in the file");
const TOO_LONG: Refusal = Refusal::Structure("a structure of more than 4096 bytes");

/// A region as a source of the reader. Clones share their state.
#[derive(Clone)]
pub(super) struct Guard {
    region: Arc<Region>,
    state: Arc<Mutex<State>>,
}

/// Why a read was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A link that leads elsewhere than to an object of this file.
    Link(&'static str),
    /// A structure that the reader must not see, or too much of them.
    Structure(&'static str),
}

struct State {
    budget: u64,
    refusal: Option<Refusal>,
    /// Where the first read since [`Guard::start_listing`] began.
    first: Option<u64>,
    /// How many links the group has that was listed since then, unless they are messages of its header.
    links: Option<u64>,
    /// Where the names of the group read last lie, and their length.
    names: Option<(u64, u64)>,
    /// The longest of these names.
    longest_name: u64,
    /// Whether the messages of the header read last are numbered.
    numbered: bool,
}

impl Guard {
    /// A guard with the budget for one file.
    pub(super) fn new(region: &Arc<Region>) -> Guard {
        let state = State {
            budget: Guard::budget(region.bytes().len() as u64),
            refusal: None,
            first: None,
            links: None,
            names: None,
            longest_name: 0,
            numbered: false,
        };
        Guard { region: Arc::clone(region), state: Arc::new(Mutex::new(state)) }
    }

    /// Before a group is listed.
    pub(super) fn start_listing(&self) {
        let mut state = self.lock();
        (state.first, state.links) = (None, None);
    }

    /// Where the header lies of the group listed since [`Guard::start_listing`].
    pub(super) fn header(&self) -> Option<u64> {
        self.lock().first
    }

    /// How many links that group has according to its symbol table or its index, if it has one.
    pub(super) fn links(&self) -> Option<u64> {
        self.lock().links
    }

    /// Why the reader failed, if that was this guard's doing.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal.clone()
    }

    /// All structures are read up to six times: groups list their members twice, and headers of members are
    /// read to tell groups from datasets. Small presets consist of structures for the most part.
    fn budget(len: u64) -> u64 {
        len.saturating_mul(8).saturating_add(64 << 10).min(MAX_BUDGET)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Guard {
    fn len(&self) -> u64 {
        self.region.bytes().len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        let mut state = self.lock();
        state.first.get_or_insert(offset);
        let read = state.read(self.region.bytes(), offset, buffer);
        read.map_err(|refusal| state.refuse(refusal))
    }

    fn read_exact_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len()) {
            return Err(self.lock().refuse(OUTSIDE));
        }
        if len as u64 > MAX_NAMES {
            return Err(self.lock().refuse(TOO_LONG));
        }
        let mut bytes = vec![0; len];
        self.read_at(offset, &mut bytes).map(|()| bytes)
    }
}

impl State {
    fn read(&mut self, file: &[u8], offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        let len = buffer.len() as u64;
        let are_names = self.names.take_if(|(at, _)| *at == offset).is_some_and(|(_, names)| names == len);
        if buffer.len() > MAX_READ && !are_names {
            return Err(TOO_LONG);
        }
        self.pay(len.max(LEAST_COST))?;
        let bytes = usize::try_from(offset).ok().and_then(|at| file.get(at..)?.get(..buffer.len()));
        let bytes = bytes.ok_or(OUTSIDE)?;
        buffer.copy_from_slice(bytes);
        if are_names {
            self.longest_name =
                bytes.split(|byte| *byte == 0).map(|name| name.len() as u64).max().unwrap_or(0);
            return Ok(());
        }
        self.inspect(bytes)
    }

    /// Looks at a structure by its signature. Addresses and lengths are of eight bytes, as the module above has
    /// checked. A structure cut short is the reader's to refuse.
    fn inspect(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some((signature, body)) = bytes.split_first_chunk::<4>() else { return Ok(()) };
        match signature {
            // Version, reserved, length of the names, a list of free space, address of the names.
            b"HEAP" => {
                let names = number(body, 20, 8).zip(number(body, 4, 8));
                if names.is_some_and(|(_, len)| len > MAX_NAMES) {
                    return Err(Refusal::Structure("a group whose links have names of more than 1 MiB"));
                }
                self.names = names;
            }
            b"SNOD" => {
                let entries = body.get(4..).unwrap_or_default().chunks_exact(40);
                self.pay((entries.len() as u64).saturating_mul(self.longest_name))?;
                // A group has any number of nodes.
                self.links = Some(self.links.unwrap_or(0).saturating_add(entries.len() as u64));
                // The name, the object, and what is cached of it: 2 for a soft link.
                if entries.clone().any(|entry| number(entry, 16, 4) == Some(2)) {
                    return Err(Refusal::Link("a soft link"));
                }
            }
            b"OHDR" => {
                let flags = body.get(1).copied().unwrap_or(0);
                self.numbered = flags & 4 != 0;
                let times = if flags & 0x20 != 0 { 16 } else { 0 };
                let phases = if flags & 0x10 != 0 { 4 } else { 0 };
                let start = 2 + times + phases + (1 << (flags & 3));
                check_messages(body.get(start..).unwrap_or_default(), self.numbered)?;
            }
            b"OCHK" => check_messages(body, self.numbered)?,
            // Version, type, length of nodes, length of records, depth, when to split and merge, root, records
            // in the root, records in all.
            b"BTHD" => {
                // A record of no length would let a node have any number of them. Real ones have eleven bytes.
                if number(body, 6, 2).is_some_and(|len| len < 8) {
                    return Err(Refusal::Structure("a tree with records of no length"));
                }
                match number(body, 1, 1) {
                    Some(5) => self.links = number(body, 22, 8),
                    Some(8 | 9) => return Err(Refusal::Structure("attributes outside of a header")),
                    _ => {}
                }
            }
            b"SMTB" | b"SMLI" => return Err(Refusal::Structure("messages outside of a header")),
            // Version, length of references, length of the description of filters.
            b"FRHP" if number(body, 3, 2) != Some(0) => {
                return Err(Refusal::Structure("a compressed heap"));
            }
            // An older header has no signature, but a start of its own, which is read by itself: the version, how many
            // messages there are, how often it is referred to, and their length. The reader makes room for them
            // before it reads them.
            [1, ..] if bytes.len() == 16 && number(body, 4, 4).is_some_and(|len| len > MAX_READ as u64) => {
                return Err(TOO_LONG);
            }
            // Nor have its messages. None begin with a signature: it would say that the first of them is longer than
            // any read.
            _ => check_older_messages(bytes)?,
        }
        Ok(())
    }

    /// Remembers the first refusal, which is the cause of what follows.
    fn refuse(&mut self, refusal: Refusal) -> FormatError {
        self.refusal.get_or_insert(refusal);
        FormatError::Source("refused".to_owned())
    }

    fn pay(&mut self, cost: u64) -> Result<(), Refusal> {
        let left = self.budget.checked_sub(cost);
        self.budget =
            left.ok_or(Refusal::Structure("structures that take more reading than the file has bytes"))?;
        Ok(())
    }
}

/// Checks the messages of a header: that every Link message is a hard link, and the types.
fn check_messages(mut messages: &[u8], numbered: bool) -> Result<(), Refusal> {
    const LINK: u8 = 6;
    const HAS_KIND: u8 = 8;
    while let [kind, low, high, flags, rest @ ..] = messages {
        let Some(rest) = rest.get(if numbered { 2 } else { 0 }..) else { break };
        let Some((body, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))) else {
            break;
        };
        messages = rest;
        check_types(u16::from(*kind), *flags, body)?;
        if *kind != LINK || body.get(1).is_none_or(|flags| flags & HAS_KIND == 0) {
            continue;
        }
        match body.get(2) {
            None | Some(0) => {}
            Some(1) => return Err(Refusal::Link("a soft link")),
            Some(64) => return Err(Refusal::Link("a link into another file")),
            Some(_) => return Err(Refusal::Link("a link of an unknown kind")),
        }
    }
    Ok(())
}

/// Checks the types among the messages of an older header, whose links are not messages.
fn check_older_messages(mut messages: &[u8]) -> Result<(), Refusal> {
    while let [k0, k1, low, high, flags, _, _, _, rest @ ..] = messages {
        let Some((body, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))) else {
            break;
        };
        messages = rest;
        check_types(u16::from_le_bytes([*k0, *k1]), *flags, body)?;
    }
    Ok(())
}

/// Checks that the type of a dataset or an attribute has room for its parts.
fn check_types(kind: u16, flags: u8, body: &[u8]) -> Result<(), Refusal> {
    const DATATYPE: u16 = 3;
    const ATTRIBUTE: u16 = 12;
    const SHARED: u8 = 2;
    let message = match kind {
        // What is shared is in another header.
        DATATYPE if flags & SHARED == 0 => Some(body),
        ATTRIBUTE => types::of_attribute(body),
        _ => None,
    };
    match message {
        Some(message) if !types::has_room(message) => {
            Err(Refusal::Structure("a type of more parts than there is room for"))
        }
        _ => Ok(()),
    }
}

/// A little-endian number of `len` bytes, at most eight.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..len)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
