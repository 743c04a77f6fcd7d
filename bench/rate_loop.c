/*
 * rate_loop.c
 *		Checks of rate limits in a loop, for bench/rate, which builds it into its
 *		copy of the extension.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"

#include "rate.h"

PG_FUNCTION_INFO_V1(poll_ext_rate_loop);

/* A number below n that nobody can foresee. */
static uint32
next_number(uint64 *state, uint32 n)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 32) * n >> 32;
}

/*
 * rate_loop(what text, n int, clients int) returns float8: nanoseconds for each
 * of n rounds, which make up the name of one of the clients and
 *	'check'		check it
 *	'memory'	touch a line of memory instead, one for each client
 *	'nothing'	do no more
 */
Datum
poll_ext_rate_loop(PG_FUNCTION_ARGS)
{
	char		what = *VARDATA_ANY(PG_GETARG_TEXT_PP(0));
	int32		n = PG_GETARG_INT32(1);
	int32		clients = PG_GETARG_INT32(2);
	uint64		state = UINT64CONST(88172645463325252);
	pg_atomic_uint32 *lines = palloc0_array(pg_atomic_uint32, (Size) clients * 16);
	volatile uint32 sum = 0;
	instr_time	start;
	instr_time	end;

	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < n; i++)
	{
		char		client[16];
		uint32		number = next_number(&state, clients);

		CHECK_FOR_INTERRUPTS();
		for (int j = 0; j < sizeof(client); j++)
			client[j] = 'a' + (number >> j & 15);
		if (what == 'c')
			sum += poll_rate_check(client, sizeof(client), "default", 7, 1, false).allowed;
		else if (what == 'm')
			sum += pg_atomic_exchange_u32(&lines[number * 16], i);
		else
			sum += client[15];
	}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	PG_RETURN_FLOAT8(INSTR_TIME_GET_DOUBLE(end) * 1e9 / n);
}
