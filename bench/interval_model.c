/*
 * interval_model.c
 *		Clients that poll by some rule, and changes that come by some pattern, on a
 *		clock of its own: for bench/interval.
 *
 * A rule sees what it would see in the server: which changes its polls have brought,
 * and with the hazard rule the times of the last changes up to now.
 *
 *		interval_model PATTERN RULE KAPPA DAYS SEED
 *
 * prints the number of changes and of polls and the mean delay of a change in seconds.
 * RULE: classic or hazard; KAPPA is of the hazard rule: above 0 what a poll is worth,
 * or 0, then it is chosen such that the number of polls is that of the classic rule.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define Max(x, y)	((x) > (y) ? (x) : (y))
#define Min(x, y)	((x) < (y) ? (x) : (y))

#include "hazard.h"

/* the defaults of poll.next_interval() and the settings */
#define SHORTEST	1.0
#define LONGEST		60.0
#define FIRST		10.0
#define JITTER		0.05

typedef struct Changes
{
	int			n;
	int			room;
	double	   *at;				/* ascending */
} Changes;

typedef struct Client
{
	const Changes *changes;
	double		(*rule) (struct Client *, double now, int before);
	double		kappa;
	double		interval;
	int			empty;
	int			seen;			/* changes that polls have brought */
} Client;

typedef struct Result
{
	long		polls;
	double		delay;			/* of all changes together */
} Result;

static unsigned long long state;

static double
uniform(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return ((state >> 11) + 0.5) / 9007199254740992.0;
}

static double
exponential(double mean)
{
	return -mean * log(uniform());
}

/* ---- patterns ---- */

static void
add(Changes *changes, double at)
{
	if (changes->n == changes->room)
	{
		changes->room = Max(2 * changes->room, 1024);
		changes->at = realloc(changes->at, sizeof(double) * changes->room);
	}
	changes->at[changes->n++] = at;
}

static void
poisson(Changes *changes, double end, double mean)
{
	for (double t = exponential(mean); t < end; t += exponential(mean))
		add(changes, t);
}

/* a conversation of some 100 messages every 15 minutes on average */
static void
bursty(Changes *changes, double end)
{
	for (double t = exponential(900); t < end; t += exponential(900))
		for (int i = 100 * (0.5 + uniform()); i > 0; i--)
			add(changes, t += exponential(2));
}

/* each minute, within half a second */
static void
cron(Changes *changes, double end)
{
	for (double t = 60; t < end; t += 60)
		add(changes, t + 0.5 * uniform());
}

static void
pareto(Changes *changes, double end)
{
	for (double t = 1; t < end; t += pow(uniform(), -1 / 1.2))
		add(changes, t);
}

/* up to one in 5 s at noon, down to one in 10 minutes at night */
static void
diurnal(Changes *changes, double end)
{
	for (double t = exponential(5); t < end; t += exponential(5))
	{
		double		rate = pow(0.5 - 0.5 * cos(2 * M_PI * t / 86400), 3);

		if (uniform() < Max(rate, 1 / 120.0))
			add(changes, t);
	}
}

/* 50 within two seconds, about every 15 minutes */
static void
batch(Changes *changes, double end)
{
	for (double t = 900; t < end; t += 900 * (0.95 + 0.1 * uniform()))
		for (int i = 0; i < 50; i++)
			add(changes, t + 2 * uniform());
}

static int
ascending(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static void
make_changes(Changes *changes, const char *pattern, double end)
{
	if (strncmp(pattern, "poisson", 7) == 0)
		poisson(changes, end, atof(pattern + 7));
	else if (strcmp(pattern, "bursty") == 0)
		bursty(changes, end);
	else if (strcmp(pattern, "cron") == 0)
		cron(changes, end);
	else if (strcmp(pattern, "pareto") == 0)
		pareto(changes, end);
	else if (strcmp(pattern, "diurnal") == 0)
		diurnal(changes, end);
	else if (strcmp(pattern, "batch") == 0)
		batch(changes, end);
	else
	{
		fprintf(stderr, "no such pattern: %s\n", pattern);
		exit(2);
	}
	qsort(changes->at, changes->n, sizeof(double), ascending);
	while (changes->n > 0 && changes->at[changes->n - 1] >= end)
		changes->n--;
}

/* ---- rules ---- */

/* poll.next_interval() with its defaults */
static double
classic(Client *client, double now, int before)
{
	(void) now;
	client->empty = client->seen > before ? 0 : client->empty + 1;
	if (client->seen > before)
		client->interval *= 0.5;
	else if (client->empty >= 3)
		client->interval *= 1.5;
	client->interval = Max(Min(client->interval, LONGEST), SHORTEST);
	return client->interval;
}

/* poll.interval_hint() */
static double
hazard(Client *client, double now, int before)
{
	static double gaps[POLL_HAZARD_GAPS];
	const double *at = client->changes->at;
	int			n = Min(client->seen - 1, POLL_HAZARD_GAPS);
	double		interval;

	if (client->seen == 0)
		return LONGEST;
	for (int i = 0; i < n && client->seen > before; i++)
		gaps[i] = at[client->seen - 1 - i] - at[client->seen - 2 - i];
	if (n > 0 && client->seen > before)
		qsort(gaps, n, sizeof(double), ascending);
	interval = poll_hazard_interval(gaps, n, now - at[client->seen - 1], client->kappa, LONGEST);
	return Max(Min(interval, LONGEST), SHORTEST) * (1 + JITTER * (2 * uniform() - 1));
}

static Result
simulate(const Changes *changes, double end, double (*rule) (Client *, double, int), double kappa)
{
	Client		client = {changes, rule, kappa, FIRST, 0, 0};
	Result		result = {0, 0};

	state = 88172645463325252ULL;
	for (double now = 0; now < end;)
	{
		int			before = client.seen;

		for (; client.seen < changes->n && changes->at[client.seen] <= now; client.seen++)
			result.delay += now - changes->at[client.seen];
		result.polls++;
		now += rule(&client, now, before);
	}
	return result;
}

/* As many polls as the classic rule, by another kappa. */
static Result
as_many_polls(const Changes *changes, double end, long polls)
{
	double		low = 1e-3;
	double		high = 1e4;

	for (int i = 0; i < 14; i++)
	{
		double		middle = sqrt(low * high);

		if (simulate(changes, end, hazard, middle).polls > polls)
			low = middle;
		else
			high = middle;
	}
	return simulate(changes, end, hazard, high);
}

int
main(int argc, char **argv)
{
	Changes		changes = {0, 0, NULL};
	Result		result;
	double		end;

	if (argc != 6)
	{
		fprintf(stderr, "usage: interval_model PATTERN RULE KAPPA DAYS SEED\n");
		return 2;
	}
	end = atof(argv[4]) * 86400;
	state = 88172645463325252ULL ^ (strtoull(argv[5], NULL, 10) * 0x9E3779B97F4A7C15ULL);
	make_changes(&changes, argv[1], end);
	result = simulate(&changes, end, classic, 0);
	if (strcmp(argv[2], "hazard") == 0)
		result = atof(argv[3]) > 0 ? simulate(&changes, end, hazard, atof(argv[3])) :
			as_many_polls(&changes, end, result.polls);
	printf("%d %ld %.4f\n", changes.n, result.polls, result.delay / changes.n);
	return 0;
}
