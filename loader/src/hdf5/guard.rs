//! The byte source of the HDF5 reader: a region, with bounds on what the reader may do.
//!
//! The reader (`hdf5-pure`) checks each structure for itself, but does not bound its work or its memory by the length of
//! the file. It follows a tree node that is its own child, or a symbol table that gives ten thousand links the same name
//! of a megabyte. It also skips soft and external links without reporting them, and does not report the address of a
//! group. The guard sees all of this in the reads:
//!
//! - Every read has a cost, and the budget is a small multiple of the file's length ([`Guard::budget`]).
//! - One read is at most [`MAX_READ`] bytes. This bounds the size of a structure, the nesting of types in a header
//!   message, and the memory that a count in a structure can make the reader allocate. Only the block of a group's link
//!   names may be longer, and copies of it have a cost, too.
//! - Types in header messages are inspected as they are read, so that the number of members that they claim fits into
//!   the message (`types.rs`). Messages that are stored outside of headers are refused.
//! - Links are inspected as they are read, in the headers of groups and in symbol tables.
//! - The first read of a group's listing is the group's header. Its address distinguishes two groups from one group that
//!   is linked twice.
//!
//! Weights are not read through the guard.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdf5_pure::{FormatError, Source};

use super::types;
use crate::map::Region;

/// The longest structure, in bytes: the size of the blocks in which the reader reads heaps. Groups that Keras writes have
/// fewer than 600 bytes.
const MAX_READ: usize = 4096;

/// The largest total length of the link names of one group, in bytes.
const MAX_NAMES: u64 = 1 << 20;

/// The lowest cost of a read, in bytes.
const MIN_COST: u64 = 64;

/// The largest budget for reading the structures of one file, in bytes. A tensor costs four to nine thousand, the most
/// when every tensor has an attribute to look up.
const MAX_BUDGET: u64 = 64 << 20;

const OUTSIDE: Refusal = Refusal::Structure("a structure that does not lie in the file");
const TOO_LONG: Refusal = Refusal::Structure("a structure of more than 4096 bytes");

/// A region as the reader's source. Clones share one state.
#[derive(Clone)]
pub(super) struct Guard {
    region: Arc<Region>,
    state: Arc<Mutex<State>>,
}

/// Why a read was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A link that does not lead to an object of this file.
    Link(&'static str),
    /// A structure that the reader must not see, or too many structures.
    Structure(&'static str),
}

struct State {
    /// The remaining budget, in bytes.
    budget: u64,
    refusal: Option<Refusal>,
    /// The address of the first read since [`Guard::start_listing`].
    first: Option<u64>,
    /// The number of links of the listed group. `None` when its links are messages of its header.
    links: Option<u64>,
    /// The address and the length of the most recent group's block of link names.
    names: Option<(u64, u64)>,
    /// The length of the longest of these names.
    longest_name: u64,
    /// Whether the messages of the most recent header are numbered.
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

    /// Prepares for listing a group.
    pub(super) fn start_listing(&self) {
        let mut state = self.lock();
        (state.first, state.links) = (None, None);
    }

    /// The address of the header of the group listed since [`Guard::start_listing`].
    pub(super) fn header(&self) -> Option<u64> {
        self.lock().first
    }

    /// The number of links of that group, according to its symbol table or its index; `None` when it has neither.
    pub(super) fn links(&self) -> Option<u64> {
        self.lock().links
    }

    /// The refusal that made the reader fail; `None` when the reader failed by itself.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal.clone()
    }

    /// The budget for a file of `len` bytes. Every structure is read up to six times: a group's members are listed twice,
    /// and headers of members are read to distinguish groups from datasets. Small presets consist mostly of structures.
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
    /// Copies bytes of the file, after paying for them and inspecting them.
    fn read(&mut self, file: &[u8], offset: u64, buffer: &mut [u8]) -> Result<(), Refusal> {
        let len = buffer.len() as u64;
        let are_names = self.names.take_if(|(at, _)| *at == offset).is_some_and(|(_, names)| names == len);
        if buffer.len() > MAX_READ && !are_names {
            return Err(TOO_LONG);
        }
        self.pay(len.max(MIN_COST))?;
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

    /// Inspects a structure by its signature. Addresses and lengths have eight bytes; the parent module has checked this.
    /// The reader refuses a truncated structure by itself.
    fn inspect(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some((signature, body)) = bytes.split_first_chunk::<4>() else { return Ok(()) };
        match signature {
            // Fields: version, reserved, length of the names, offset of the free list, address of the names.
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
                // A group can have several nodes.
                self.links = Some(self.links.unwrap_or(0).saturating_add(entries.len() as u64));
                // Fields of an entry: name, object, cache type (2 for a soft link).
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
            // Fields: version, type, length of nodes, length of records, depth, split and merge percentages, root,
            // records in the root, records in total.
            b"BTHD" => {
                // With records of length 0, a node could have any number of them. Real records have eleven bytes.
                if number(body, 6, 2).is_some_and(|len| len < 8) {
                    return Err(Refusal::Structure("a tree with records of length 0"));
                }
                match number(body, 1, 1) {
                    Some(5) => self.links = number(body, 22, 8),
                    Some(8 | 9) => return Err(Refusal::Structure("attributes outside of a header")),
                    _ => {}
                }
            }
            b"SMTB" | b"SMLI" => return Err(Refusal::Structure("messages outside of a header")),
            // Fields: version, length of references, length of the filter description.
            b"FRHP" if number(body, 3, 2) != Some(0) => {
                return Err(Refusal::Structure("a compressed heap"));
            }
            // An older header has no signature. Its prefix of 16 bytes is read by itself: version, number of messages,
            // reference count, length of the messages. The reader allocates memory of that length before it reads them.
            [1, ..] if bytes.len() == 16 && number(body, 4, 4).is_some_and(|len| len > MAX_READ as u64) => {
                return Err(TOO_LONG);
            }
            // The messages of an older header have no signature either. They cannot be mistaken for a structure above: as
            // a message, each of those signatures declares a length greater than `MAX_READ`.
            _ => check_older_messages(bytes)?,
        }
        Ok(())
    }

    /// Stores the first refusal, which is the cause of later ones.
    fn refuse(&mut self, refusal: Refusal) -> FormatError {
        self.refusal.get_or_insert(refusal);
        FormatError::Source("refused".to_owned())
    }

    /// Subtracts a cost from the budget.
    fn pay(&mut self, cost: u64) -> Result<(), Refusal> {
        let left = self.budget.checked_sub(cost);
        self.budget = left
            .ok_or(Refusal::Structure("structures that take more reading than the file's length allows"))?;
        Ok(())
    }
}

/// Checks the messages of a header: every Link message is a hard link, and the types have room for their members.
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

/// Checks that the type in a Datatype or Attribute message has room for its members.
fn check_types(kind: u16, flags: u8, body: &[u8]) -> Result<(), Refusal> {
    const DATATYPE: u16 = 3;
    const ATTRIBUTE: u16 = 12;
    const SHARED: u8 = 2;
    let message = match kind {
        // A shared type is stored in another header.
        DATATYPE if flags & SHARED == 0 => Some(body),
        ATTRIBUTE => types::of_attribute(body),
        _ => None,
    };
    match message {
        Some(message) if !types::has_room(message) => {
            Err(Refusal::Structure("a type with more members than there is room for"))
        }
        _ => Ok(()),
    }
}

/// A little-endian number of `len` bytes, at most eight.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.get(..len)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
