/*
 * waiters.c
 *		Sessions that wait for changes, and the writers that wake them.
 *
 * A waiter has a place in shared memory with a bit for each signal that it waits for:
 * the hash of a channel.  A transaction remembers the signals of the channels that it has
 * written to, and when it has committed, and its changes are visible, it sets the latch
 * of each waiter that has one of them.  Two channels with the same signal only make a
 * waiter look once more for nothing, and many count as all.
 *
 * A waiter arms itself, then looks with a new snapshot, then sleeps.  A writer becomes
 * visible first, and looks for armed waiters after that.  So one of the two sees the
 * other.  Who wakes a waiter disarms it: while it is busy, the others need not do
 * anything, and without waiters a commit reads one shared word for each 64 places.
 *
 * Who waits for many clients, whose feeds are not its own, looks at the signals: each
 * has a count of the commits that have sent it.  The order is the same: a writer becomes
 * visible, then counts, then looks for armed waiters.  Who has read a count, and has then
 * found nothing new with a new snapshot, will hear of what comes later: by another
 * count.  What was prepared commits without telling what it has touched: that counts
 * for all.
 *
 * Nobody tells of what is replayed on a standby, or written by a server that has not
 * preloaded the library: there, and without a place, waiters look again from time to
 * time (wait.c).
 *
 * Locking: none.  A place belongs to the process that has changed "taken" from 0; its
 * other fields are written by it alone, while it is not armed.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "shmem.h"
#include "waiters.h"

/* more wait without being woken */
#define MAX_WAITERS		128

/* bits of a place, which several signals share: that only wakes for nothing */
#define FILTER_BITS		65536
#define FILTER_WORDS	(FILTER_BITS / 64)

typedef struct Filter
{
	uint64		words[FILTER_WORDS];
} Filter;

typedef struct Waiter
{
	pg_atomic_uint32 taken;
	Oid			database;
	Latch	   *latch;
	Filter		filter;
} Waiter;

typedef struct Waiters
{
	pg_atomic_uint64 armed[MAX_WAITERS / 64];	/* a bit for each place */
	pg_atomic_uint64 counts[POLL_SIGNALS];
	pg_atomic_uint64 all;		/* counts for each */
	Waiter		places[MAX_WAITERS];
} Waiters;

static Waiters *waiters = NULL;

/* this process's place, or -1 */
static int	my_place = -1;

/* more signals than this count as all */
#define MAX_TOUCHED		64

/* the signals of what this transaction has written to */
static int	touched[MAX_TOUCHED];
static int	ntouched = 0;

void
poll_waiters_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Waiters)));
}

void
poll_waiters_shmem_init(void)
{
	bool		found;
	uint64		start;

	waiters = ShmemInitStruct("poll_ext waiters", sizeof(Waiters), &found);
	if (found)
		return;
	memset(waiters, 0, sizeof(Waiters));
	/* not where it was before a restart */
	start = (uint64) GetCurrentTimestamp();
	for (int i = 0; i < POLL_SIGNALS; i++)
		pg_atomic_init_u64(&waiters->counts[i], 0);
	pg_atomic_init_u64(&waiters->all, start);
	for (int i = 0; i < lengthof(waiters->armed); i++)
		pg_atomic_init_u64(&waiters->armed[i], 0);
	for (int i = 0; i < MAX_WAITERS; i++)
		pg_atomic_init_u32(&waiters->places[i].taken, 0);
}

int
poll_signal_of(int64 channel)
{
	return poll_shmem_hash(channel) % POLL_SIGNALS;
}

static void
filter_add(Filter *filter, int signal)
{
	filter->words[signal % FILTER_BITS / 64] |= UINT64CONST(1) << (signal % 64);
}

static bool
filter_has(const Filter *filter, int signal)
{
	return (filter->words[signal % FILTER_BITS / 64] >> (signal % 64)) & 1;
}

/* ---- writers ---- */

void
poll_waiters_note(int64 channel)
{
	int			signal;

	if (waiters == NULL || ntouched > MAX_TOUCHED)
		return;
	signal = poll_signal_of(channel);
	for (int i = 0; i < ntouched; i++)
		if (touched[i] == signal)
			return;
	if (ntouched < MAX_TOUCHED)
		touched[ntouched] = signal;
	ntouched++;
}

void
poll_waiters_forget(void)
{
	ntouched = 0;
}

/* Wakes those in this database that wait for one of these; NULL: all. */
static void
wake(const int *signals, int n)
{
	/* visible first, then look: pairs with poll_waiters_arm() */
	pg_memory_barrier();
	for (int i = 0; i < lengthof(waiters->armed); i++)
	{
		uint64		armed = pg_atomic_read_u64(&waiters->armed[i]);

		for (; armed != 0; armed &= armed - 1)
		{
			int			place = pg_rightmost_one_pos64(armed);
			const Waiter *waiter = &waiters->places[i * 64 + place];
			uint64		bit = UINT64CONST(1) << place;
			bool		waits = signals == NULL;

			if (waiter->database != MyDatabaseId)
				continue;
			for (int j = 0; !waits && j < n; j++)
				waits = filter_has(&waiter->filter, signals[j]);
			/* it may have gone since: then its latch is set for nothing */
			if (waits && (pg_atomic_fetch_and_u64(&waiters->armed[i], ~bit) & bit))
				SetLatch(waiter->latch);
		}
	}
}

void
poll_waiters_wake_all(void)
{
	if (waiters == NULL)
		return;
	pg_atomic_fetch_add_u64(&waiters->all, 1);
	wake(NULL, 0);
}

static void
send(const int *signals, int n)
{
	for (int i = 0; i < n; i++)
		pg_atomic_fetch_add_u64(&waiters->counts[signals[i]], 1);
	wake(signals, n);
}

void
poll_waiters_wake(void)
{
	if (ntouched > MAX_TOUCHED)
		poll_waiters_wake_all();
	else if (ntouched > 0)
		send(touched, ntouched);
	poll_waiters_forget();
}

/* ---- signals ---- */

bool
poll_signals_available(void)
{
	return waiters != NULL;
}

uint64
poll_signal_count(int signal)
{
	return pg_atomic_read_u64(&waiters->counts[signal]) + pg_atomic_read_u64(&waiters->all);
}

void
poll_signal_send(int signal)
{
	send(&signal, 1);
}

/* ---- waiting ---- */

bool
poll_waiters_begin(void)
{
	Assert(my_place < 0);
	for (int i = 0; waiters != NULL && i < MAX_WAITERS; i++)
	{
		Waiter	   *place = &waiters->places[i];
		uint32		expected = 0;

		if (pg_atomic_read_u32(&place->taken) != 0 ||
			!pg_atomic_compare_exchange_u32(&place->taken, &expected, 1))
			continue;
		place->database = MyDatabaseId;
		place->latch = MyLatch;
		memset(&place->filter, 0, sizeof(Filter));
		my_place = i;
		return true;
	}
	return false;
}

void
poll_waiters_end(void)
{
	if (my_place < 0)
		return;
	pg_atomic_fetch_and_u64(&waiters->armed[my_place / 64], ~(UINT64CONST(1) << (my_place % 64)));
	/* a full barrier: the next owner's fields come after this */
	pg_atomic_exchange_u32(&waiters->places[my_place].taken, 0);
	my_place = -1;
}

void
poll_waiters_add_signal(int signal)
{
	if (my_place >= 0)
		filter_add(&waiters->places[my_place].filter, signal);
}

void
poll_waiters_add(int64 channel)
{
	poll_waiters_add_signal(poll_signal_of(channel));
}

void
poll_waiters_arm(void)
{
	if (my_place >= 0)
		pg_atomic_fetch_or_u64(&waiters->armed[my_place / 64], UINT64CONST(1) << (my_place % 64));
}
