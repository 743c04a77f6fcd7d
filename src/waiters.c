/*
 * waiters.c
 *		Sessions that wait for changes, and the writers that wake them.
 *
 * A waiter has a place in shared memory with a Bloom filter of the channels that it
 * waits for.  A transaction remembers the bits of the channels that it has written to,
 * and when it has committed, and its changes are visible, it sets the latch of each
 * waiter that has one of them.  Two channels with the same bit only make a waiter look
 * once more for nothing.
 *
 * A waiter arms itself, then looks with a new snapshot, then sleeps.  A writer becomes
 * visible first, and looks for armed waiters after that.  So one of the two sees the
 * other.  Who wakes a waiter disarms it: while it is busy, the others need not do
 * anything, and without waiters a commit reads one shared word for each 64 places.
 *
 * Who waits for many clients, whose feeds are not its own, waits for signals: the bits
 * of the filter, each with a count of the commits that have touched it.  The order is the
 * same: a writer becomes visible, then counts, then looks for armed waiters.  Who has read
 * a count, and has then found nothing new with a new snapshot, will hear of what comes
 * later: by another count.  What was prepared commits without telling what it has
 * touched: that counts for all.
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
#define FILTER_WORDS	(POLL_SIGNALS / 64)

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

/* what this transaction has written to */
static Filter touched;
static bool any_touched = false;

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
	filter->words[signal / 64] |= UINT64CONST(1) << (signal % 64);
}

static bool
filters_meet(const Filter *a, const Filter *b)
{
	uint64		common = 0;

	for (int i = 0; i < FILTER_WORDS; i++)
		common |= a->words[i] & b->words[i];
	return common != 0;
}

/* ---- writers ---- */

void
poll_waiters_note(int64 channel)
{
	if (waiters == NULL)
		return;
	filter_add(&touched, poll_signal_of(channel));
	any_touched = true;
}

void
poll_waiters_forget(void)
{
	if (any_touched)
		memset(&touched, 0, sizeof(touched));
	any_touched = false;
}

/* Wakes those in this database that wait for one of these; NULL: all. */
static void
wake(const Filter *filter)
{
	/* visible first, then look: pairs with poll_waiters_arm() */
	pg_memory_barrier();
	for (int i = 0; i < lengthof(waiters->armed); i++)
	{
		uint64		armed = pg_atomic_read_u64(&waiters->armed[i]);

		for (int j = 0; armed >> j != 0 && j < 64; j++)
		{
			const Waiter *waiter = &waiters->places[i * 64 + j];
			uint64		bit = UINT64CONST(1) << j;

			if ((armed & bit) == 0 || waiter->database != MyDatabaseId ||
				(filter != NULL && !filters_meet(filter, &waiter->filter)))
				continue;
			/* it may have gone since: then its latch is set for nothing */
			if (pg_atomic_fetch_and_u64(&waiters->armed[i], ~bit) & bit)
				SetLatch(waiter->latch);
		}
	}
}

static void
count(const Filter *filter)
{
	for (int i = 0; i < FILTER_WORDS; i++)
	{
		uint64		word = filter->words[i];

		while (word != 0)
		{
			pg_atomic_fetch_add_u64(&waiters->counts[i * 64 + pg_rightmost_one_pos64(word)], 1);
			word &= word - 1;
		}
	}
}

void
poll_waiters_wake(void)
{
	if (any_touched)
	{
		count(&touched);
		wake(&touched);
	}
	poll_waiters_forget();
}

void
poll_waiters_wake_all(void)
{
	if (waiters == NULL)
		return;
	pg_atomic_fetch_add_u64(&waiters->all, 1);
	wake(NULL);
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
	Filter		filter = {0};

	filter_add(&filter, signal);
	count(&filter);
	wake(&filter);
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
