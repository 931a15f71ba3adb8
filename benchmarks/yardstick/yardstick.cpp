// The yardstick: how quick this work can be in C++ when nothing else is asked of it.
//
// A price-time book written only to be fast: 32-byte slots made once, intrusive queues, a flat ladder of every tick with
// two levels of bitmaps, order ids chained through the slots with eight neighbouring ids on a line.  It takes the commands
// of a Ferrox flow (limit orders, IOC, cancels, replaces that lose priority), 32 bytes each, and writes 48-byte reports
// into a small buffer that it uses over and over.  It checks no field, knows no bands, lots, accounts or states, keeps no sequence and
// cannot be restored: a bound to measure against, not an engine.
//
// usage: yardstick RECORDS PREFILL INSTRUMENTS LADDER_BITS LOWEST_PRICE REPETITIONS
//        prints a line a repetition: messages, CPU nanoseconds, trades, orders left
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sys/mman.h>

using u8 = uint8_t;
using u32 = uint32_t;
using i32 = int32_t;
using u64 = uint64_t;
using i64 = int64_t;

struct Command { u8 kind, side, tif, flags; u32 instrument; i64 id, price; u32 quantity, display; };
struct Report { i64 sequence, order, contra, price; u32 quantity, leaves, instrument; u8 kind, side, reason, flags; };
static_assert(sizeof(Command) == 32 && sizeof(Report) == 48, "layouts");

struct Slot { i64 id; u32 leaves, filled; u32 level; i32 next, before, chain; };
struct Level { i32 head, tail; };
static_assert(sizeof(Slot) == 32, "two to a cache line");

static void* pages(size_t size) {                       // zeroed, on huge pages, faulted in now
    size_t huge = 2u << 20, whole = (size + huge - 1) / huge * huge;
    char* p = static_cast<char*>(mmap(nullptr, whole + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (p == MAP_FAILED) { perror("mmap"); exit(1); }
    p += (huge - reinterpret_cast<uintptr_t>(p) % huge) % huge;
    madvise(p, whole, MADV_HUGEPAGE);
    memset(p, 0, whole);
    return p;
}

struct Yardstick {
    static constexpr u32 RING = 4096;
    Slot* slots; Level* levels; i32* heads; u64 *fine, *coarse; i64* best;   // best[instrument * 2 + side]
    Report* out; u64 written = 0, trades = 0, resting = 0; i64 sequence = 0;
    i32 free = 1; u32 ladder_bits, ticks, id_bits; i64 lowest;

    Yardstick(u32 instruments, u32 bits, i64 low, u32 capacity = 1u << 20, u32 hash_bits = 20)
        : ladder_bits(bits), ticks(1u << bits), id_bits(hash_bits), lowest(low) {
        slots = static_cast<Slot*>(pages(sizeof(Slot) * (capacity + 1ull)));
        for (u32 s = 1; s < capacity; s++) slots[s].next = static_cast<i32>(s + 1);
        levels = static_cast<Level*>(pages(sizeof(Level) * (u64(instruments) << bits)));
        heads = static_cast<i32*>(pages(4ull << hash_bits));
        fine = static_cast<u64*>(pages((u64(instruments) << bits) / 8 + 8));
        coarse = static_cast<u64*>(pages((u64(instruments) << bits) / 512 + 8 + 8ull * instruments));
        best = static_cast<i64*>(pages(16ull * instruments));
        for (u32 i = 0; i < instruments; i++) { best[i * 2] = -1; best[i * 2 + 1] = ticks; }
        out = static_cast<Report*>(pages(sizeof(Report) * RING));
    }
    u64 place(i64 id) const {
        u64 line = static_cast<u64>(id >> 3) * 0x9E3779B97F4A7C15ull;
        return (line >> (64 - id_bits) & ~7ull) | (id & 7);
    }
    i32 find(i64 id, u64 at) const { i32 s = heads[at]; while (s && slots[s].id != id) s = slots[s].chain; return s; }
    void enlist(i32 s) { i32& head = heads[place(slots[s].id)]; slots[s].chain = head; head = s; }
    void delist(i32 s, u64 at) { i32* p = &heads[at]; while (*p != s) p = &slots[*p].chain; *p = slots[s].chain; }
    void mark(u64 level) { fine[level >> 6] |= 1ull << (level & 63); coarse[level >> 12] |= 1ull << (level >> 6 & 63); }
    void unmark(u64 level) {
        if (!(fine[level >> 6] &= ~(1ull << (level & 63)))) coarse[level >> 12] &= ~(1ull << (level >> 6 & 63));
    }
    i64 above(u64 base, i64 tick) const {                 // the lowest marked tick above this one
        u64 level = base + static_cast<u64>(tick) + 1, end = base + ticks;
        if (level >= end) return ticks;
        if (u64 w = fine[level >> 6] >> (level & 63)) { u64 n = level + __builtin_ctzll(w); return n < end ? i64(n - base) : i64(ticks); }
        for (u64 word = (level >> 6) + 1; word < (end + 63) >> 6;) {
            u64 w = coarse[word >> 6] >> (word & 63);
            if (!w) { word = (word | 63) + 1; continue; }
            word += __builtin_ctzll(w);
            u64 n = (word << 6) + __builtin_ctzll(fine[word]);
            return n < end ? i64(n - base) : i64(ticks);
        }
        return ticks;
    }
    i64 below(u64 base, i64 tick) const {                 // the highest marked tick below this one
        if (tick <= 0) return -1;
        u64 level = base + static_cast<u64>(tick) - 1;
        if (u64 w = fine[level >> 6] << (63 - (level & 63))) { u64 n = level - __builtin_clzll(w); return n >= base ? i64(n - base) : -1; }
        for (i64 word = i64(level >> 6) - 1; word >= i64(base >> 6);) {
            u64 w = coarse[word >> 6] << (63 - (word & 63));
            if (!w) { word = (word & ~63ll) - 1; continue; }
            word -= __builtin_clzll(w);
            u64 n = (u64(word) << 6) + 63 - __builtin_clzll(fine[word]);
            return n >= base ? i64(n - base) : -1;
        }
        return -1;
    }
    void tell(const Command& r, u8 kind, i64 id, i64 contra, i64 price, u32 quantity, u32 leaves, u8 side) {
        out[written++ & (RING - 1)] = Report{sequence, id, contra, price, quantity, leaves, r.instrument, kind, side, 0, 0};
    }
    void take_out(i32 s, u64 at) {
        Slot& o = slots[s]; u32 level = o.level >> 1, side = o.level & 1; Level& l = levels[level];
        if (o.before) slots[o.before].next = o.next; else l.head = o.next;
        if (o.next) slots[o.next].before = o.before; else l.tail = o.before;
        if (!l.head) {
            unmark(level);
            u64 base = u64(level >> ladder_bits) << ladder_bits; i64 tick = level - i64(base); i64& b = best[(level >> ladder_bits) * 2 + side];
            if (b == tick) b = side ? above(base, tick) : below(base, tick);
        }
        delist(s, at); o.next = free; free = s; resting--;
    }
    void enter(const Command& r, i64 id, u32 side, i64 price, u32 leaves, u32 filled, bool ioc) {
        u32 book = r.instrument - 1; u64 base = u64(book) << ladder_bits; i64 limit = price - lowest;
        i64& far = best[book * 2 + !side];
        while (leaves && (side ? far >= limit : far <= limit)) {
            i64 tick = far; Level& l = levels[base + tick];
            while (leaves && l.head) {
                i32 s = l.head; Slot& m = slots[s]; u32 traded = m.leaves < leaves ? m.leaves : leaves;
                leaves -= traded; filled += traded; m.filled += traded; trades++;
                tell(r, 2, id, m.id, tick + lowest, traded, leaves, u8(side + 1));
                if ((m.leaves -= traded)) break;
                l.head = m.next; delist(s, place(m.id)); m.next = free; free = s; resting--;
                if (l.head) slots[l.head].before = 0;
            }
            if (l.head) break;
            l.tail = 0; unmark(base + tick);
            far = side ? below(base, tick) : above(base, tick);
        }
        if (!leaves) return;
        if (ioc) { tell(r, 5, id, 0, price, leaves, 0, u8(side + 1)); return; }
        i32 s = free; Slot& o = slots[s]; free = o.next; Level& l = levels[base + limit]; resting++;
        o = Slot{id, leaves, filled, u32(base + limit) << 1 | side, 0, l.tail, 0};
        if (l.tail) slots[l.tail].next = s; else { l.head = s; mark(base + limit); i64& b = best[book * 2 + side]; if (side ? limit < b : limit > b) b = limit; }
        l.tail = s; enlist(s);
    }
    void apply(const Command& r) {
        sequence++;
        if (r.kind == 1) {
            tell(r, 1, r.id, 0, r.price, r.quantity, r.quantity, r.side);
            enter(r, r.id, r.side - 1u, r.price, r.quantity, 0, r.tif == 2);
        } else if (r.kind == 2) {
            u64 at = place(r.id); i32 s = find(r.id, at);
            if (!s) { tell(r, 7, r.id, 0, 0, 0, 0, 0); return; }
            tell(r, 3, r.id, 0, i64(slots[s].level >> 1 & (ticks - 1)) + lowest, slots[s].leaves, 0, u8((slots[s].level & 1) + 1));
            take_out(s, at);
        } else if (r.kind == 3) {
            u64 at = place(r.id); i32 s = find(r.id, at);
            if (!s) { tell(r, 8, r.id, 0, 0, 0, 0, 0); return; }
            u32 filled = slots[s].filled; take_out(s, at);
            tell(r, 4, r.id, 0, r.price, r.quantity, r.quantity - filled, r.side);
            enter(r, r.id, r.side - 1u, r.price, r.quantity - filled, filled, false);
        }
    }
};

static u64 cpu() { timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }

int main(int count, char** words) {
    if (count != 7) { fprintf(stderr, "usage: yardstick RECORDS PREFILL INSTRUMENTS LADDER_BITS LOWEST_PRICE REPETITIONS\n"); return 2; }
    FILE* file = fopen(words[1], "rb");
    if (!file) { perror(words[1]); return 2; }
    fseek(file, 0, SEEK_END); u64 size = u64(ftell(file)), messages = size / 64; rewind(file);
    Command* commands = static_cast<Command*>(pages(size / 2));
    char record[64];
    for (u64 i = 0; i < messages; i++) {
        if (fread(record, 64, 1, file) != 1) { perror(words[1]); return 2; }
        memcpy(commands + i, record + 32, 32);
    }
    fclose(file);
    u64 prefill = strtoull(words[2], nullptr, 10);
    for (int repetition = atoi(words[6]); repetition > 0; repetition--) {
        Yardstick book(u32(atoi(words[3])), u32(atoi(words[4])), atoll(words[5]));
        for (u64 i = 0; i < prefill; i++) book.apply(commands[i]);
        u64 start = cpu();
        for (u64 i = prefill; i < messages; i++) book.apply(commands[i]);
        printf("%llu %llu %llu %llu\n", (unsigned long long)(messages - prefill), (unsigned long long)(cpu() - start),
               (unsigned long long)book.trades, (unsigned long long)book.resting);
        fflush(stdout);
    }
}
