/*
 * ratetable.c
 *		The counters of all clients, in shared memory.
 *
 * The memory is fixed at the start of the server, whatever clients do: sets of
 * eight entries of 64 bytes.  A keyed hash of who a client is gives two sets; it
 * may have any of the entries in them: in the first as long as some are free
 * there, then in the emptier one.  (So even of a table that is three quarters
 * full, one client in some thousands finds none; with one set it would be one in
 * twenty.)  The key is random and new at each start, so nobody can choose names that meet
 * in one set.  The hash, of 128 bits, stands for the name: no name is stored.
 *
 * A new client takes an entry that is free, or of whose client nothing is
 * remembered any more.  If there is none, it takes the place of the client that
 * has spent the smallest part of its quota.  That one starts anew if it comes
 * back, so a table that is too small lets clients spend more than their quota;
 * evictions are counted.  A client that has spent everything is never
 * forgotten: else a flood of made-up names would set it free.  If all sixteen
 * are such, a new client is charged to a counter of its endpoint that all
 * clients share which find no room.
 *
 * Endpoints are few.  They have a number, which entries carry, so that an entry
 * can be judged (and counted) without knowing its client.  One is made at the
 * first check of a policy, and again if its algorithm or interval changes,
 * since counters mean nothing under another one.  It is given up, with its
 * entries, when the policy is gone, or when nobody has used it for so long that
 * all in it is forgotten (policy.c).
 *
 * Locking.  What costs is the memory of the table, which no cache holds: a
 * check should touch one line of it.  So a client is first put, and looked for,
 * at one entry of its first set, its home, and most are there.  An entry has a
 * lock of its own, a bit of its head, that protects its counter; its head says
 * whose it is, as good as surely, before it is locked.  Whose it is may change
 * only under the spinlocks of that client's sets (sets share some) and the
 * entry's lock, taken in this order; a check that does not find its client at
 * home takes those of the sets first.
 * The shared counter of an endpoint has a spinlock, taken with no other.  All
 * are held for some tens of instructions, a few hundred if a victim is looked
 * for.  The name of an endpoint changes under RatetableLock, exclusively, and
 * the rest of it is atomic.  An endpoint may be given to another name just
 * before it is used: then a figure in a statistic is wrong, or its quota until
 * its own next check.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/lwlock.h"
#include "storage/s_lock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"

#include "guc.h"
#include "ratetable.h"
#include "siphash.h"

#define WAYS			8
#define FEW_FREE		2		/* of a set */
#define SET_LOCKS		128
#define MAX_ENDPOINTS	POLL_RATETABLE_MAX_ENDPOINTS
#define LWLOCK_TRANCHE	"poll_ext"
#define LINE			64		/* of the processor's cache */

typedef struct PollRateEntry
{
	PollCounter counter;		/* its owner is a part of the hash, like: */
	uint32		hash;
	pg_atomic_uint32 head;		/* 0: free; else HEAD_... */
} PollRateEntry;

/* From the top: the lock, the endpoint's number + 1, 16 bits of the hash. */
#define HEAD_LOCK				((uint32) 1 << 31)
#define HEAD_MAKE(number, bits)	(((uint32) (number) + 1) << 16 | (uint16) (bits))
#define HEAD_NUMBER(head)		((int) (((head) & ~HEAD_LOCK) >> 16) - 1)

typedef struct PollRateSet
{
	PollRateEntry entries[WAYS];
} PollRateSet;

typedef union PollRateSetLock
{
	slock_t		lock;
	char		line[LINE];
} PollRateSetLock;

typedef struct PollRateSlot
{
	pg_atomic_uint32 generation;
	Oid			database;		/* invalid: free */
	NameData	name;
	PollAlgorithm algorithm;
	int32		interval;

	/* the latest policy that a check brought along */
	pg_atomic_uint32 quota;
	pg_atomic_uint32 burst;

	pg_atomic_uint64 used;		/* the time of the last check, about */
	pg_atomic_uint64 checks;
	pg_atomic_uint64 denials;
	pg_atomic_uint64 evictions;
	pg_atomic_uint64 overflows;

	slock_t		lock;			/* for: */
	PollCounter overflow;
} PollRateSlot;

typedef struct PollRateTable
{
	uint64		key[2];
	uint32		nsets;
	PollRateSetLock set_locks[SET_LOCKS];
	PollRateSlot slots[MAX_ENDPOINTS];
} PollRateTable;

StaticAssertDecl(sizeof(PollRateEntry) == LINE, "an entry is a line");

static PollRateTable *table = NULL;
static PollRateSet *sets;
static LWLock *RatetableLock;

static uint32
set_count(void)
{
	return Max(poll_rate_entries / WAYS, 1);
}

void
poll_ratetable_shmem_request(void)
{
	if (poll_rate_entries == 0)
		return;
	RequestAddinShmemSpace(MAXALIGN(sizeof(PollRateTable)));
	RequestAddinShmemSpace(mul_size(set_count(), sizeof(PollRateSet)));
	RequestNamedLWLockTranche(LWLOCK_TRANCHE, 1);
}

/* No endpoint's; what is read of it meanwhile must still make sense. */
static void
slot_clear(PollRateSlot *slot)
{
	slot->database = InvalidOid;
	slot->algorithm = POLL_ALGORITHM_WINDOW;
	slot->interval = 1;
	pg_atomic_write_u32(&slot->quota, 1);
	pg_atomic_write_u32(&slot->burst, 1);
	pg_atomic_write_u64(&slot->used, 0);
	pg_atomic_write_u64(&slot->checks, 0);
	pg_atomic_write_u64(&slot->denials, 0);
	pg_atomic_write_u64(&slot->evictions, 0);
	pg_atomic_write_u64(&slot->overflows, 0);
	SpinLockAcquire(&slot->lock);
	pg_atomic_fetch_add_u32(&slot->generation, 1);
	poll_limiter_clear(&slot->overflow, 0);
	SpinLockRelease(&slot->lock);
}

static void
slot_init(PollRateSlot *slot)
{
	SpinLockInit(&slot->lock);
	pg_atomic_init_u32(&slot->generation, 0);
	pg_atomic_init_u32(&slot->quota, 0);
	pg_atomic_init_u32(&slot->burst, 0);
	pg_atomic_init_u64(&slot->used, 0);
	pg_atomic_init_u64(&slot->checks, 0);
	pg_atomic_init_u64(&slot->denials, 0);
	pg_atomic_init_u64(&slot->evictions, 0);
	pg_atomic_init_u64(&slot->overflows, 0);
	slot_clear(slot);
}

void
poll_ratetable_shmem_init(void)
{
	bool		found;

	if (poll_rate_entries == 0)
		return;
	table = ShmemInitStruct("poll_ext rate limits", sizeof(PollRateTable), &found);
	sets = ShmemInitStruct("poll_ext rate entries", mul_size(set_count(), sizeof(PollRateSet)), &found);
	RatetableLock = &GetNamedLWLockTranche(LWLOCK_TRANCHE)->lock;
	if (found)
		return;

	if (!pg_strong_random(table->key, sizeof(table->key)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random key for rate limits")));
	table->nsets = set_count();
	for (int i = 0; i < SET_LOCKS; i++)
		SpinLockInit(&table->set_locks[i].lock);
	for (int i = 0; i < MAX_ENDPOINTS; i++)
		slot_init(&table->slots[i]);
	memset(sets, 0, mul_size(table->nsets, sizeof(PollRateSet)));
	for (uint32 i = 0; i < table->nsets; i++)
		for (int way = 0; way < WAYS; way++)
			pg_atomic_init_u32(&sets[i].entries[way].head, 0);
}

bool
poll_ratetable_available(void)
{
	return table != NULL;
}

void
poll_ratetable_require(void)
{
	if (table != NULL)
		return;
	if (poll_rate_entries == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rate limits are switched off"),
				 errhint("Set poll_ext.rate_entries and restart the server.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rate limits need poll_ext in shared_preload_libraries"),
			 errhint("Add it there and restart the server.")));
}

int64
poll_ratetable_now(void)
{
	instr_time	now;

	if (poll_debug_rate_clock >= 0)
		return (int64) rint(poll_debug_rate_clock * 1000000);
	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

PollRateOwner
poll_ratetable_hash(const void *data, Size length)
{
	PollRateOwner owner;

	poll_siphash(table->key, data, length, owner.hash);
	return owner;
}

/* ---- entries ---- */

static slock_t *
set_lock(const PollRateSet *set)
{
	return &table->set_locks[(set - sets) % SET_LOCKS].lock;
}

/* Waits for an entry that is locked; see lock_entry(). */
static bool
wait_for_entry(PollRateEntry *entry, uint32 head)
{
	SpinDelayStatus delay;
	uint32		seen;

	init_local_spin_delay(&delay);
	do
	{
		perform_spin_delay(&delay);
		seen = head;
	} while (!pg_atomic_compare_exchange_u32(&entry->head, &seen, head | HEAD_LOCK) &&
			 seen == (head | HEAD_LOCK));
	finish_spin_delay(&delay);
	return seen == head;
}

/* Locks the entry, but only while it has that head, which is not 0. */
static bool
lock_entry(PollRateEntry *entry, uint32 head)
{
	uint32		seen = pg_atomic_read_u32(&entry->head);

	if (seen == head && pg_atomic_compare_exchange_u32(&entry->head, &seen, head | HEAD_LOCK))
		return true;
	return seen == (head | HEAD_LOCK) && wait_for_entry(entry, head);
}

/* Unlocks it; from now on it has that head. */
static void
unlock_entry(PollRateEntry *entry, uint32 head)
{
	pg_read_barrier();
	pg_write_barrier();
	pg_atomic_write_u32(&entry->head, head);
}

/*
 * Copies an entry's counter and returns the number of its endpoint; -1 for a
 * free one.
 */
static int
read_entry(PollRateEntry *entry, PollCounter *counter)
{
	uint32		head;

	while ((head = pg_atomic_read_u32(&entry->head) & ~HEAD_LOCK) != 0)
		if (lock_entry(entry, head))
		{
			*counter = entry->counter;
			unlock_entry(entry, head);
			return HEAD_NUMBER(head);
		}
	return -1;
}

/* The caller has locked the set. */
static void
free_entry(PollRateEntry *entry)
{
	uint32		head = pg_atomic_read_u32(&entry->head) & ~HEAD_LOCK;

	if (head != 0 && lock_entry(entry, head))
		unlock_entry(entry, 0);
}

/* ---- endpoints ---- */

static PollLimit
slot_limit(PollRateSlot *slot)
{
	PollLimit	limit;

	limit.algorithm = slot->algorithm;
	limit.interval = slot->interval;
	limit.quota = pg_atomic_read_u32(&slot->quota);
	limit.burst = pg_atomic_read_u32(&slot->burst);
	return limit;
}

static bool
slot_matches(PollRateSlot *slot, const char *name, const PollLimit *limit)
{
	return slot->database == MyDatabaseId &&
		slot->algorithm == limit->algorithm && slot->interval == limit->interval &&
		strcmp(NameStr(slot->name), name) == 0;
}

bool
poll_ratetable_endpoint(const char *name, const PollLimit *limit, PollRateEndpoint *endpoint)
{
	int			number = -1;

	LWLockAcquire(RatetableLock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_ENDPOINTS; i++)
	{
		PollRateSlot *slot = &table->slots[i];

		if (slot_matches(slot, name, limit))
		{
			number = i;
			break;
		}
		if (number < 0 && !OidIsValid(slot->database))
			number = i;
	}
	if (number >= 0)
	{
		PollRateSlot *slot = &table->slots[number];

		if (!OidIsValid(slot->database))
		{
			slot->database = MyDatabaseId;
			namestrcpy(&slot->name, name);
			slot->algorithm = limit->algorithm;
			slot->interval = limit->interval;
			pg_atomic_write_u32(&slot->quota, limit->quota);
			pg_atomic_write_u32(&slot->burst, limit->burst);
		}
		pg_atomic_write_u64(&slot->used, poll_ratetable_now());
		endpoint->number = number;
		endpoint->generation = pg_atomic_read_u32(&slot->generation);
	}
	LWLockRelease(RatetableLock);
	return number >= 0;
}

bool
poll_ratetable_endpoint_valid(const PollRateEndpoint *endpoint)
{
	return pg_atomic_read_u32(&table->slots[endpoint->number].generation) == endpoint->generation;
}

/* Frees the entries of these endpoints. */
static void
forget_endpoints(const bool *released)
{
	for (uint32 i = 0; i < table->nsets; i++)
	{
		SpinLockAcquire(set_lock(&sets[i]));
		for (int way = 0; way < WAYS; way++)
		{
			PollRateEntry *entry = &sets[i].entries[way];
			int			number = HEAD_NUMBER(pg_atomic_read_u32(&entry->head));

			if (number >= 0 && released[number])
				free_entry(entry);
		}
		SpinLockRelease(set_lock(&sets[i]));
	}
}

void
poll_ratetable_release(const PollRateEndpoint *endpoints, int n)
{
	bool		released[MAX_ENDPOINTS] = {0};

	if (n == 0)
		return;
	LWLockAcquire(RatetableLock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
		if (poll_ratetable_endpoint_valid(&endpoints[i]))
		{
			PollRateSlot *slot = &table->slots[endpoints[i].number];

			slot_clear(slot);
			released[endpoints[i].number] = true;
		}
	forget_endpoints(released);
	LWLockRelease(RatetableLock);
}

/* ---- clients ---- */

/* Where an owner's entry can be. */
typedef struct PollRatePlace
{
	PollRateSet *sets[2];		/* perhaps the same */
	int			home;			/* its way in the first */
} PollRatePlace;

static PollRateSet *
nth_set(uint64 part)
{
	return &sets[(part & PG_UINT32_MAX) * table->nsets >> 32];
}

static PollRatePlace
owner_place(const PollRateOwner *owner)
{
	PollRatePlace place;

	place.sets[0] = nth_set(owner->hash[1] >> 32);
	place.sets[1] = nth_set(owner->hash[0]);
	place.home = (owner->hash[1] >> 16) % WAYS;
	return place;
}

static PollRateEntry *
home_entry(const PollRatePlace *place)
{
	return &place->sets[0]->entries[place->home];
}

/* Its entries in the order in which they are looked at: 0 is home. */
static PollRateEntry *
nth_entry(const PollRatePlace *place, int n)
{
	return &place->sets[n / WAYS]->entries[(place->home + n) % WAYS];
}

static void
lock_place(const PollRatePlace *place)
{
	slock_t    *one = set_lock(place->sets[0]);
	slock_t    *other = set_lock(place->sets[1]);

	SpinLockAcquire(Min(one, other));
	if (one != other)
		SpinLockAcquire(Max(one, other));
}

static void
unlock_place(const PollRatePlace *place)
{
	slock_t    *one = set_lock(place->sets[0]);
	slock_t    *other = set_lock(place->sets[1]);

	SpinLockRelease(one);
	if (one != other)
		SpinLockRelease(other);
}

static uint32
owner_head(const PollRateOwner *owner, const PollRateEndpoint *endpoint)
{
	return HEAD_MAKE(endpoint->number, owner->hash[1]);
}

void
poll_ratetable_prefetch(const PollRateOwner *owner)
{
	PollRatePlace place = owner_place(owner);

	__builtin_prefetch(home_entry(&place), 1);
}

/* Locks the entry if it is the owner's. */
static bool
lock_if_owner(PollRateEntry *entry, const PollRateOwner *owner, uint32 head)
{
	if (!lock_entry(entry, head))
		return false;
	if (entry->counter.owner == (uint32) (owner->hash[0] >> 32) &&
		entry->hash == (uint32) owner->hash[0])
		return true;
	unlock_entry(entry, head);
	return false;
}

/* The owner's entry, locked, or NULL; the caller has locked the place. */
static PollRateEntry *
find_entry(const PollRatePlace *place, const PollRateOwner *owner, uint32 head)
{
	for (int i = 0; i < 2 * WAYS; i++)
		if (lock_if_owner(nth_entry(place, i), owner, head))
			return nth_entry(place, i);
	return NULL;
}

/* The entry to give to a new client. */
typedef struct PollRateVictim
{
	PollRateEntry *entry;		/* or NULL */
	double		spent;			/* by whom it is taken from; 0: nobody */
	int			endpoint;		/* that one's, if spent is not 0 */
} PollRateVictim;

/* What the client of an entry has spent, of a free one 0; *number: its endpoint. */
static double
entry_spent(PollRateEntry *entry, int64 now, PollCounter *counter, int *number)
{
	PollLimit	limit;

	*number = read_entry(entry, counter);
	if (*number < 0)
		return 0;
	limit = slot_limit(&table->slots[*number]);
	return poll_limiter_spent(counter, &limit, now);
}

/*
 * A free entry of the first set, unless hardly any is left there: then of the
 * set that has more.  Else that of the client that has spent least.  The caller
 * has locked the place.
 */
static PollRateVictim
find_victim(const PollRatePlace *place, int64 now)
{
	PollRateVictim victim = {NULL, 1.0, -1};
	PollRateEntry *free_entries[2] = {NULL, NULL};
	int			nfree[2] = {0, 0};
	int64		least_at = PG_INT64_MAX;
	int			better;

	for (int i = 0; i < 2 * WAYS; i++)
	{
		PollRateEntry *entry = nth_entry(place, i);
		PollCounter counter;
		int			number;
		double		spent = entry_spent(entry, now, &counter, &number);

		if (spent == 0)
		{
			if (nfree[i / WAYS]++ == 0)
				free_entries[i / WAYS] = entry;
		}
		else if (spent < victim.spent ||
				 (spent == victim.spent && victim.entry != NULL && counter.at < least_at))
		{
			victim.entry = entry;
			victim.spent = spent;
			victim.endpoint = number;
			least_at = counter.at;
		}
		if (i == WAYS - 1 && nfree[0] > FEW_FREE)
			break;
	}
	better = nfree[1] > nfree[0] ? 1 : 0;
	if (nfree[better] > 0)
	{
		victim.entry = free_entries[better];
		victim.spent = 0;
	}
	return victim;
}

/*
 * Locks the victim, unless it has spent more meanwhile.  The caller has locked
 * the place, so it is still the same client's.
 */
static bool
lock_victim(const PollRateVictim *victim, int64 now)
{
	PollRateEntry *entry = victim->entry;
	uint32		head = pg_atomic_read_u32(&entry->head) & ~HEAD_LOCK;
	PollLimit	limit;

	if (head == 0)
		return true;			/* only who has locked its set can take it */
	lock_entry(entry, head);
	limit = slot_limit(&table->slots[HEAD_NUMBER(head)]);
	if (poll_limiter_spent(&entry->counter, &limit, now) <= victim->spent)
		return true;
	unlock_entry(entry, head);
	return false;
}

/*
 * Gives an entry to the owner and returns it, locked; NULL if there is none to
 * give.  *evicted: the endpoint of who is forgotten by it, or -1.  The caller
 * has locked the place.
 */
static PollRateEntry *
new_entry(const PollRatePlace *place, const PollRateOwner *owner, uint32 head, int64 now, int *evicted)
{
	PollRateVictim victim;
	PollRateEntry *entry;

	do
	{
		victim = find_victim(place, now);
		if (victim.entry == NULL)
			return NULL;
	} while (!lock_victim(&victim, now));

	entry = victim.entry;
	*evicted = victim.spent > 0 ? victim.endpoint : -1;
	poll_limiter_clear(&entry->counter, now);
	entry->counter.owner = owner->hash[0] >> 32;
	entry->hash = (uint32) owner->hash[0];
	pg_write_barrier();
	pg_atomic_write_u32(&entry->head, head | HEAD_LOCK);
	return entry;
}

static bool
charge_overflow(PollRateSlot *slot, const PollRateEndpoint *endpoint, const PollLimit *limit,
				int64 now, int32 cost, PollCounter *counter)
{
	bool		taken = true;

	poll_limiter_clear(counter, now);
	SpinLockAcquire(&slot->lock);
	/* it may be another endpoint's by now */
	if (poll_ratetable_endpoint_valid(endpoint))
	{
		taken = poll_limiter_take(&slot->overflow, limit, now, cost);
		*counter = slot->overflow;
	}
	SpinLockRelease(&slot->lock);
	pg_atomic_fetch_add_u64(&slot->overflows, 1);
	return taken;
}

/* For a client that has not committed a policy yet, it is not in force. */
static void
update_slot(PollRateSlot *slot, const PollLimit *limit, int64 now)
{
	if (now - (int64) pg_atomic_read_u64(&slot->used) > USECS_PER_SEC)
		pg_atomic_write_u64(&slot->used, now);
	if ((pg_atomic_read_u32(&slot->quota) != limit->quota ||
		 pg_atomic_read_u32(&slot->burst) != limit->burst) &&
		!TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		pg_atomic_write_u32(&slot->quota, limit->quota);
		pg_atomic_write_u32(&slot->burst, limit->burst);
	}
}

bool
poll_ratetable_take(const PollRateOwner *owner, const PollLimit *limit,
					const PollRateEndpoint *endpoint, int64 now, int32 cost,
					PollCounter *counter)
{
	PollRateSlot *slot = &table->slots[endpoint->number];
	PollRatePlace place = owner_place(owner);
	PollRateEntry *entry = home_entry(&place);
	uint32		head = owner_head(owner, endpoint);
	bool		at_home;
	int			evicted = -1;
	bool		taken;

	/* while the entry is on its way: what is known of the endpoint */
	update_slot(slot, limit, now);
	pg_atomic_fetch_add_u64(&slot->checks, 1);

	at_home = lock_if_owner(entry, owner, head);
	if (!at_home)
	{
		lock_place(&place);
		entry = find_entry(&place, owner, head);
		if (entry == NULL)
			entry = new_entry(&place, owner, head, now, &evicted);
	}
	if (entry != NULL)
	{
		taken = poll_limiter_take(&entry->counter, limit, now, cost);
		*counter = entry->counter;
		unlock_entry(entry, head);
	}
	if (!at_home)
		unlock_place(&place);
	if (entry == NULL)
		taken = charge_overflow(slot, endpoint, limit, now, cost, counter);

	if (evicted >= 0)
		pg_atomic_fetch_add_u64(&table->slots[evicted].evictions, 1);
	if (!taken)
		pg_atomic_fetch_add_u64(&slot->denials, 1);
	return taken;
}

void
poll_ratetable_refused(const PollRateEndpoint *endpoint)
{
	pg_atomic_fetch_add_u64(&table->slots[endpoint->number].checks, 1);
	pg_atomic_fetch_add_u64(&table->slots[endpoint->number].denials, 1);
}

void
poll_ratetable_peek(const PollRateOwner *owner, const PollLimit *limit,
					const PollRateEndpoint *endpoint, int64 now, PollCounter *counter)
{
	PollRateSlot *slot = &table->slots[endpoint->number];
	PollRatePlace place = owner_place(owner);
	PollRateEntry *entry;
	bool		room = true;

	poll_limiter_clear(counter, now);
	lock_place(&place);
	entry = find_entry(&place, owner, owner_head(owner, endpoint));
	if (entry != NULL)
	{
		*counter = entry->counter;
		unlock_entry(entry, owner_head(owner, endpoint));
	}
	else
		room = find_victim(&place, now).entry != NULL;
	unlock_place(&place);

	if (!room)
	{
		SpinLockAcquire(&slot->lock);
		*counter = slot->overflow;
		SpinLockRelease(&slot->lock);
	}
}

bool
poll_ratetable_forget(const PollRateOwner *owner, const PollRateEndpoint *endpoint)
{
	PollRatePlace place = owner_place(owner);
	PollRateEntry *entry;

	lock_place(&place);
	entry = find_entry(&place, owner, owner_head(owner, endpoint));
	if (entry != NULL)
		unlock_entry(entry, 0);
	unlock_place(&place);
	return entry != NULL;
}

/* ---- statistics ---- */

PollRateInfo *
poll_ratetable_list(int *n)
{
	PollRateInfo *list = palloc0(MAX_ENDPOINTS * sizeof(PollRateInfo));

	*n = 0;
	LWLockAcquire(RatetableLock, LW_SHARED);
	for (int i = 0; i < MAX_ENDPOINTS; i++)
	{
		PollRateSlot *slot = &table->slots[i];
		PollRateInfo *info = &list[*n];

		if (!OidIsValid(slot->database))
			continue;
		info->endpoint.number = i;
		info->endpoint.generation = pg_atomic_read_u32(&slot->generation);
		info->database = slot->database;
		info->name = slot->name;
		info->limit = slot_limit(slot);
		info->used = pg_atomic_read_u64(&slot->used);
		info->checks = pg_atomic_read_u64(&slot->checks);
		info->denials = pg_atomic_read_u64(&slot->denials);
		info->evictions = pg_atomic_read_u64(&slot->evictions);
		info->overflows = pg_atomic_read_u64(&slot->overflows);
		(*n)++;
	}
	LWLockRelease(RatetableLock);
	return list;
}

void
poll_ratetable_count(PollRateInfo *list, int n, int64 now)
{
	PollRateInfo *by_number[MAX_ENDPOINTS] = {0};

	for (int i = 0; i < n; i++)
		by_number[list[i].endpoint.number] = &list[i];
	for (uint32 i = 0; i < table->nsets; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int way = 0; way < WAYS; way++)
		{
			PollCounter counter;
			int			number = read_entry(&sets[i].entries[way], &counter);
			PollRateInfo *info = number >= 0 ? by_number[number] : NULL;

			if (info != NULL && poll_limiter_spent(&counter, &info->limit, now) > 0)
				info->entries++;
		}
	}
}
