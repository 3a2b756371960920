//! What can go wrong, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What kind of thing is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// The controller is about to send a request.
    Request,
    /// A process on the host is about to do one thing.
    Micro,
    /// The service manager is in the middle of its work.
    Daemon,
    /// The host's answer is about to be sent.
    Reply,
    /// The controller is about to write and sync a record.
    Journal,
}

/// A place in a life of a controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Point {
    pub(super) kind: Kind,
    pub(super) op: String,
    pub(super) what: String,
}

macro_rules! faults {
    ($($name:ident $word:literal $says:literal,)*) => {
        /// What goes wrong there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Fault { $($name,)* }

        impl Fault {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub(super) fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            pub(super) fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
        }
    };
}

faults! {
    FailBefore "fail-before" "fails, and nothing happened",
    FailAfter "fail-after" "fails, and it happened",
    Kill "kill" "controller killed before it (between act and record); what the host has begun it ends",
    KillHang "kill-hang" "controller killed; what the host has begun hangs for an hour",
    KillTorn "kill-torn" "controller killed in the middle of writing the record",
    KillAfter "kill-after" "controller killed after the record",
    LinkGone "link-gone" "link cut for good",
    LinkBack "link-back" "link cut (the reply is lost), back later; what the host has begun it ends",
    LinkHang "link-hang" "link cut, back later; what the host has begun hangs for an hour",
    Reboot "reboot" "host reboots",
    PowerLost "power-lost" "power lost: nothing that was not synced is left",
    PowerTorn "power-torn" "power lost: names reached the disk, content that was not synced did not",
    Asleep "asleep" "controller sleeps for an hour and then goes on",
}

impl Fault {
    /// What can happen at such a point.
    pub(super) fn at(kind: Kind) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |fault| fault.fits(kind).is_ok())
    }

    /// Whether it can happen at such a point; else why not.
    pub(super) fn fits(self, kind: Kind) -> Result<(), &'static str> {
        use Fault::{
            Asleep, FailAfter, FailBefore, Kill, KillAfter, KillHang, KillTorn, LinkBack, LinkGone, LinkHang,
            PowerLost, PowerTorn, Reboot,
        };
        match (kind, self) {
            (Kind::Micro, KillTorn | KillAfter) => Err("of records only"),
            (Kind::Micro, Asleep) => Err("the controller waits for the answer: it sleeps before the next request"),
            (Kind::Micro, _) => Ok(()),
            (Kind::Journal, FailBefore | FailAfter | Kill | KillTorn | KillAfter | Asleep) => Ok(()),
            (Kind::Journal, KillHang | LinkHang) => Err("no request is under way"),
            (Kind::Journal, LinkGone | LinkBack | Reboot | PowerLost | PowerTorn) => {
                Err("done at the request before and after it")
            }
            (Kind::Request, Kill | Asleep | LinkGone | LinkBack | Reboot | PowerLost | PowerTorn) => Ok(()),
            (Kind::Request, KillHang | LinkHang) => Err("the host has begun nothing"),
            (Kind::Request, FailBefore | FailAfter) => Err("a request that is not sent is a lost link"),
            (Kind::Request, KillTorn | KillAfter) => Err("of records only"),
            (Kind::Reply, Kill | LinkGone | LinkBack | Reboot | PowerLost | PowerTorn) => Ok(()),
            (Kind::Reply, FailBefore | FailAfter) => Err("an answer that is not sent is a lost reply"),
            (Kind::Reply, KillHang | LinkHang) => Err("the host has ended its work"),
            (Kind::Reply, KillTorn | KillAfter) => Err("of records only"),
            (Kind::Reply, Asleep) => Err("the controller sleeps before the next request"),
            (Kind::Daemon, Kill | LinkGone | LinkBack | Reboot | PowerLost | PowerTorn) => Ok(()),
            (Kind::Daemon, _) => Err("the service manager's own failure shows as that of the restart"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|fault| fault.word() == text).copied().ok_or_else(|| format!("no fault `{text}`"))
    }
}

/// Counts points and says what goes wrong at them. Lives are counted from 0, points of a life too.
pub(super) struct Injector {
    faults: Vec<(usize, usize, Fault)>,
    pub(super) life: usize,
    /// The points of each life so far.
    pub(super) trace: Vec<Vec<Point>>,
    /// What was hit, in which life.
    pub(super) hits: BTreeSet<(usize, Point, Fault)>,
}

impl Injector {
    pub(super) fn new(faults: &[(usize, usize, Fault)]) -> Self {
        Self { faults: faults.to_vec(), life: 0, trace: vec![Vec::new()], hits: BTreeSet::new() }
    }

    pub(super) fn next_life(&mut self) {
        self.life += 1;
        self.trace.push(Vec::new());
    }

    pub(super) fn point(&mut self, point: Point) -> Option<Fault> {
        let trace = self.trace.last_mut()?;
        let at = trace.len();
        trace.push(point.clone());
        let fault = self.faults.iter().find(|(life, place, _)| (*life, *place) == (self.life, at))?.2;
        if fault.fits(point.kind).is_ok() {
            self.hits.insert((self.life, point, fault));
            Some(fault)
        } else {
            None
        }
    }
}
