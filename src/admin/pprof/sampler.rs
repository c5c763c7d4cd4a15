//! What threads are doing: a timer on each thread's CPU time, a signal handler that walks frame pointers, a bounded
//! buffer between it and whoever gathers.
//!
//! Why a handler of our own: libgcc's unwinder may lock and allocate inside a signal, and unwinders by frame pointers
//! lose the function that was interrupted, or its caller when the C library was. Timers of threads, not of the
//! process: every core gets its own signals, and none is sent to a thread that did nothing.
//!
//! Invariants: the handler allocates nothing, locks nothing, makes no system call and leaves `errno` alone; it reads
//! only the interrupted thread's own stack and the program's own image; a full buffer drops the sample and counts it.
//! Once installed the handler stays: a late signal without one would end the process.
#![expect(unsafe_code, reason = "signals, timers and another frame's stack are beyond safe Rust; each block argues")]

use std::{
    collections::HashMap,
    io, mem,
    ops::Range,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::maps::{self, Mapping};
use crate::limits::{PROFILE_DEPTH_MAX, PROFILE_HZ, PROFILE_SAMPLES_WAITING_MAX};

/// A thread's number in the kernel.
pub type Tid = u32;

/// One sample of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The thread.
    pub tid: Tid,
    /// Periods that it stands for: more than one when the thread was long in the kernel.
    pub weight: u32,
    /// Addresses of instructions, the interrupted one first, then the calls around it.
    pub stack: &'a [usize],
}

/// When a thread is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// [`PROFILE_HZ`] times a second of its CPU time.
    Running,
    /// Once, now. Wakes the thread if it sleeps in the kernel; what it called is restarted or returns `EINTR`.
    Now,
}

/// A run of the sampler; its end is its drop.
#[derive(Debug)]
pub struct Sampler {
    run: u32,
    timers: HashMap<Tid, libc::timer_t>,
}

/// Which run signals have to name; 0: none, and signals are ignored.
static RUN: AtomicU32 = AtomicU32::new(0);
static RUNS: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Where the next sample is tried first.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Made before the first signal and never freed, because a signal may come late.
static SHARED: OnceLock<Shared> = OnceLock::new();

struct Shared {
    slots: Box<[Slot]>,
    image: Image,
    main_stack: Range<usize>,
}

struct Slot {
    state: AtomicU32,
    run: AtomicU32,
    tid: AtomicU32,
    weight: AtomicU32,
    depth: AtomicUsize,
    stack: [AtomicUsize; PROFILE_DEPTH_MAX],
}

/// The handler may take the slot.
const FREE: u32 = 0;
/// The handler writes it.
const WRITING: u32 = 1;
/// The gatherer may take it.
const READY: u32 = 2;

impl Sampler {
    /// Begins a run without threads. Errors: another one runs, or the handler cannot be installed.
    pub fn start() -> io::Result<Self> {
        SHARED.get_or_init(Shared::new);
        install()?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        if RUN.compare_exchange(0, run, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        DROPPED.store(0, Ordering::Relaxed);
        Ok(Self { run, timers: HashMap::new() })
    }

    /// Samples a thread of this process from now on, if it is not sampled already.
    ///
    /// Errors: the thread is gone, or there is no timer to be had (`RLIMIT_SIGPENDING`).
    pub fn watch(&mut self, tid: Tid, when: When) -> io::Result<()> {
        if !self.timers.contains_key(&tid) {
            self.timers.insert(tid, arm(tid, self.run, when)?);
        }
        Ok(())
    }

    /// Gives up the timers of threads that have ended.
    pub fn retain(&mut self, lives: impl Fn(Tid) -> bool) {
        self.timers.retain(|tid, timer| {
            let kept = lives(*tid);
            if !kept {
                disarm(*timer);
            }
            kept
        });
    }

    /// How many threads are sampled.
    pub fn watched(&self) -> usize {
        self.timers.len()
    }

    /// Takes the samples that wait.
    pub fn drain(&self, mut take: impl FnMut(Sample<'_>)) {
        let mut stack = Vec::with_capacity(PROFILE_DEPTH_MAX);
        for slot in SHARED.get().iter().flat_map(|shared| &shared.slots) {
            if slot.state.load(Ordering::Acquire) != READY {
                continue;
            }
            let depth = slot.depth.load(Ordering::Relaxed).min(PROFILE_DEPTH_MAX);
            stack.clear();
            stack.extend(slot.stack[..depth].iter().map(|word| word.load(Ordering::Relaxed)));
            let (tid, weight) = (slot.tid.load(Ordering::Relaxed), slot.weight.load(Ordering::Relaxed));
            // What an earlier run left is thrown away.
            let current = slot.run.load(Ordering::Relaxed) == self.run;
            slot.state.store(FREE, Ordering::Release);
            if current {
                take(Sample { tid, weight, stack: &stack });
            }
        }
    }

    /// Samples of this run that found the buffer full.
    pub fn dropped(&self) -> u64 {
        DROPPED.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.timers.values().for_each(|timer| disarm(*timer));
        RUN.store(0, Ordering::Release);
    }
}

/// Leaves nearly all of a CPU to others that want it: a core that is busy all the time keeps nine tenths of its own. With the lowest
/// priority it would keep all but a hundredth, and an operator would wait ten seconds for the stacks of a node in trouble.
pub fn yield_to_everybody() {
    // SAFETY: takes numbers only; 0 is the calling thread on Linux.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

impl Shared {
    fn new() -> Self {
        let maps = maps::read();
        let main_stack = maps.iter().find(|mapping| mapping.path == "[stack]").map_or(0, |mapping| mapping.end);
        Self {
            slots: (0..PROFILE_SAMPLES_WAITING_MAX).map(|_| Slot::new()).collect(),
            image: Image::of(&maps, on_signal as *const () as usize),
            main_stack: main_stack.saturating_sub(MAIN_STACK_BYTES)..main_stack,
        }
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            run: AtomicU32::new(0),
            tid: AtomicU32::new(0),
            weight: AtomicU32::new(0),
            depth: AtomicUsize::new(0),
            stack: [const { AtomicUsize::new(0) }; PROFILE_DEPTH_MAX],
        }
    }

    fn claim(&self) -> bool {
        self.state.compare_exchange(FREE, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn install() -> io::Result<()> {
    // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    // Not on the alternative stack: std makes it just large enough for its own handler, and ours needs more.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: the handler has the form that SA_SIGINFO asks for and lives as long as the program; nothing else in
    // this process uses SIGPROF.
    check(unsafe { libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) })
}

fn arm(tid: Tid, run: u32, when: When) -> io::Result<libc::timer_t> {
    let nanoseconds = libc::c_long::from(1_000_000_000 / PROFILE_HZ as i32);
    let (clock, first, period) = match when {
        // The kernel's number for a thread's CPU clock (`MAKE_THREAD_CPUCLOCK`, include/linux/posix-timers.h).
        When::Running => ((!tid.cast_signed() << 3) | 6, nanoseconds, nanoseconds),
        When::Now => (libc::CLOCK_MONOTONIC, 1, 0),
    };
    // SAFETY: all zero is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGPROF;
    event.sigev_notify_thread_id = tid.cast_signed();
    event.sigev_value.sival_ptr = ptr::without_provenance_mut((run as usize) << 32 | tid as usize);
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: the kernel reads the event and writes the timer that the pointers borrow for the call.
    check(unsafe { libc::timer_create(clock, &raw mut event, &raw mut timer) })?;
    let time = |tv_nsec| libc::timespec { tv_sec: 0, tv_nsec };
    let times = libc::itimerspec { it_interval: time(period), it_value: time(first) };
    // SAFETY: the timer was made above; the kernel reads the times that the pointer borrows for the call.
    let set = check(unsafe { libc::timer_settime(timer, 0, &raw const times, ptr::null_mut()) });
    if set.is_err() {
        disarm(timer);
    }
    set.map(|()| timer)
}

fn disarm(timer: libc::timer_t) {
    // SAFETY: every timer here was made by `timer_create` and is given up once.
    unsafe { libc::timer_delete(timer) };
}

/// Runs on whatever thread the signal interrupts.
extern "C" fn on_signal(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes both, valid until the handler returns.
    let (info, context) = unsafe { (&*info, &*context.cast::<libc::ucontext_t>()) };
    if info.si_code != libc::SI_TIMER {
        return;
    }
    // SAFETY: a timer's signal carries a value. Its overrun count lies where other signals have the sender's user
    // (`union __sifields`, include/uapi/asm-generic/siginfo.h).
    let (value, overrun) = unsafe { (info.si_value().sival_ptr.addr(), info.si_uid()) };
    let (run, tid) = ((value >> 32) as u32, value as u32);
    if run == 0 || run != RUN.load(Ordering::Acquire) {
        return;
    }
    let Some(shared) = SHARED.get() else { return };
    let weight = overrun.saturating_add(1);
    let first = NEXT.fetch_add(1, Ordering::Relaxed) % shared.slots.len();
    let slot = &shared.slots[first];
    if !slot.claim() {
        DROPPED.fetch_add(u64::from(weight), Ordering::Relaxed);
        return;
    }
    slot.run.store(run, Ordering::Relaxed);
    slot.tid.store(tid, Ordering::Relaxed);
    slot.weight.store(weight, Ordering::Relaxed);
    slot.depth.store(trace(context, shared, &slot.stack), Ordering::Relaxed);
    slot.state.store(READY, Ordering::Release);
}

/// What was interrupted.
#[derive(Clone, Copy)]
struct Registers {
    pc: usize,
    sp: usize,
    fp: usize,
}

#[cfg(target_arch = "x86_64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let register = |at: libc::c_int| context.uc_mcontext.gregs[at as usize] as usize;
    Registers { pc: register(libc::REG_RIP), sp: register(libc::REG_RSP), fp: register(libc::REG_RBP) }
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &libc::ucontext_t) -> Registers {
    let machine = &context.uc_mcontext;
    Registers { pc: machine.pc as usize, sp: machine.sp as usize, fp: machine.regs[29] as usize }
}

/// Writes the interrupted thread's stack to `out`; how deep it is.
fn trace(context: &libc::ucontext_t, shared: &Shared, out: &[AtomicUsize]) -> usize {
    let registers = registers(context);
    let mut depth = 0;
    let mut push = |address: usize| {
        out[depth].store(address, Ordering::Relaxed);
        depth += 1;
        depth < out.len()
    };
    push(registers.pc);
    let Some(stack) = Stack::of(registers.sp, context, &shared.main_stack) else { return depth };
    let (caller, mut fp) = above_leaf(registers, &stack, &shared.image);
    // A call's own address is what is named, not that of the instruction behind it.
    if caller.is_some_and(|caller| !push(caller - 1)) {
        return depth;
    }
    while let (Some(next), Some(caller)) = (stack.word(fp), stack.word(fp.wrapping_add(WORD))) {
        // All that has frame pointers is in the program itself; the C library starts a thread and is its outermost.
        if !shared.image.text.contains(&caller) || !push(caller - 1) || next <= fp {
            break;
        }
        fp = next;
    }
    depth
}

/// The caller of an interrupted function that has no frame, as those of the C library, and the frame to go on from.
///
/// Such a function leaves the frame pointer to its caller, and a walk from there would miss that caller. Its
/// return address is the first word on the stack behind a call to this very function.
fn above_leaf(Registers { pc, sp, fp }: Registers, stack: &Stack, image: &Image) -> (Option<usize>, usize) {
    let called_from = |at: usize| stack.word(at).filter(|caller| image.calls(*caller, pc));
    let own = fp.wrapping_add(WORD);
    if called_from(own).is_some() {
        return (None, fp);
    }
    // A frame that the program itself made ends what has to be searched; the kernel's page of code makes frames too.
    let is_ours = stack.word(own).is_some_and(|caller| image.text.contains(&caller));
    let words = (0..LEAF_WORDS).map(|n| sp + n * WORD).take_while(|at| !is_ours || *at < fp);
    let Some((at, caller)) = words.filter_map(|at| Some((at, called_from(at)?))).next() else { return (None, fp) };
    (Some(caller), frame_above(at, sp, fp, stack))
}

/// The frame of the function whose return address from a leaf stands at `at`; 0 if it cannot be told.
fn frame_above(at: usize, sp: usize, fp: usize, stack: &Stack) -> usize {
    let mut frame = fp;
    while frame < at {
        match stack.word(frame) {
            Some(next) if next > frame => frame = next,
            _ => break,
        }
    }
    if frame > at && stack.word(frame).is_some() {
        return frame;
    }
    // The leaf uses the frame pointer for something else: then it has saved it.
    let saved = (sp..at).step_by(WORD).filter_map(|at| stack.word(at));
    saved.filter(|saved| *saved > at && stack.word(*saved).is_some()).min().unwrap_or(0)
}

const WORD: usize = size_of::<usize>();
/// How much of a function without a frame is searched for its return address.
const LEAF_WORDS: usize = 64;
/// Deeper the main thread is not followed; below is the kernel's gap, which nothing else is mapped in.
const MAIN_STACK_BYTES: usize = 64 << 20;
/// Longer no thread's stack is believed to be.
const STACK_BYTES_MAX: usize = 256 << 20;
/// A call to so little before an address is taken for a call of its function.
const FUNCTION_BYTES_MAX: usize = 64 << 10;

/// The part of the interrupted thread's stack that is in use.
struct Stack(Range<usize>);

impl Stack {
    /// The stack that `sp` is on; none if it is none that we know the end of.
    fn of(sp: usize, context: &libc::ucontext_t, main_stack: &Range<usize>) -> Option<Self> {
        let alternative = context.uc_stack.ss_sp.addr();
        if (alternative..alternative.saturating_add(context.uc_stack.ss_size)).contains(&sp) {
            return None;
        }
        if main_stack.contains(&sp) {
            return Some(Self(sp..main_stack.end));
        }
        // SAFETY: always succeeds, and is one of POSIX' async-signal-safe functions.
        let descriptor = unsafe { libc::pthread_self() } as usize;
        let known = sp < descriptor && descriptor - sp < STACK_BYTES_MAX;
        known.then_some(Self(sp..descriptor))
    }

    fn word(&self, at: usize) -> Option<usize> {
        let inside = at >= self.0.start && at.checked_add(WORD).is_some_and(|end| end <= self.0.end);
        // SAFETY: `at` is aligned and within the range. The main thread's runs up to the end of its stack, which stays
        // mapped; another thread's up to its descriptor, which both glibc and musl put on top of its stack in one
        // mapping that lives as long as the thread, and the thread is in this handler. Nobody else writes there.
        (inside && at.is_multiple_of(WORD)).then(|| unsafe { (at as *const usize).read() })
    }
}

/// The program's own file in memory.
struct Image {
    text: Range<usize>,
    /// What follows the text without a gap: constants that the loader wrote, and variables.
    data: Range<usize>,
}

impl Image {
    /// The image that has `address` in its text.
    fn of(maps: &[Mapping], address: usize) -> Self {
        let text = maps.iter().position(|mapping| (mapping.start..mapping.end).contains(&address));
        let Some(at) = text.filter(|at| maps[*at].readable) else { return Self { text: 0..0, data: 0..0 } };
        let text = &maps[at];
        let mut end = text.end;
        for mapping in &maps[at + 1..] {
            if mapping.start != end || mapping.path != text.path || !mapping.readable {
                break;
            }
            end = mapping.end;
        }
        Self { text: text.start..text.end, data: text.end..end }
    }

    /// Whether the instruction before `after` calls the function that `pc` is in.
    fn calls(&self, after: usize, pc: usize) -> bool {
        let Some(target) = self.call_target(after) else { return false };
        if self.text.contains(&pc) {
            target <= pc && pc - target < FUNCTION_BYTES_MAX
        } else {
            // In another library the function may have called others of its own.
            !self.text.contains(&target)
        }
    }

    /// Where the call before `after` goes, if it is one that says so.
    #[cfg(target_arch = "x86_64")]
    fn call_target(&self, after: usize) -> Option<usize> {
        const BYTES: usize = 6;
        if after < self.text.start + BYTES || after > self.text.end {
            return None;
        }
        // SAFETY: within the text, which is readable, stays mapped and is never written.
        let code = unsafe { ((after - BYTES) as *const [u8; BYTES]).read() };
        let [a, b, offset @ ..] = code;
        let target = after.wrapping_add_signed(i32::from_le_bytes(offset) as isize);
        match (a, b) {
            (_, 0xe8) => Some(target),
            // Through a pointer that the loader has set.
            (0xff, 0x15) => self.pointer(target),
            _ => None,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn call_target(&self, _after: usize) -> Option<usize> {
        None
    }

    #[cfg(target_arch = "x86_64")]
    fn pointer(&self, at: usize) -> Option<usize> {
        let inside = self.data.contains(&at) && self.data.contains(&(at + WORD - 1));
        // SAFETY: aligned and within the program's data, which is readable and stays mapped. A variable there may
        // change meanwhile; a word is read whole, and whatever it says is only compared.
        (inside && at.is_multiple_of(WORD)).then(|| unsafe { (at as *const usize).read_volatile() })
    }
}
