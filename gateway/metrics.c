/*
 * metrics.c
 *		What the gateway has done, in numbers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "metrics.h"
#include "pool.h"
#include "wait.h"

#define MAX_STATUS	600
#define BUCKETS		13

static const char *const route_names[ROUTES] = {"poll", "function", "other"};
static const double bounds[BUCKETS] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};

static uint64_t requests[ROUTES][MAX_STATUS];
static uint64_t buckets[ROUTES][BUCKETS + 1];
static uint64_t sent[ROUTES];
static double seconds_sum[ROUTES];

void
metrics_count(Route route, const Answer *answer, double seconds)
{
	int			bucket = 0;

	while (bucket < BUCKETS && seconds > bounds[bucket])
		bucket++;
	buckets[route][bucket]++;
	seconds_sum[route] += seconds;
	sent[route] += answer->size;
	if (answer->status > 0 && answer->status < MAX_STATUS)
		requests[route][answer->status]++;
}

static void
print_family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# TYPE poll_gateway_%s %s\n# HELP poll_gateway_%s %s\n", name, type, name, help);
}

static void
print_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
	print_family(out, name, "gauge", help);
	fprintf(out, "poll_gateway_%s %" PRIu64 "\n", name, value);
}

static void
print_durations(FILE *out, Route route)
{
	uint64_t	count = 0;

	for (int i = 0; i < BUCKETS; i++)
	{
		count += buckets[route][i];
		fprintf(out, "poll_gateway_request_seconds_bucket{route=\"%s\",le=\"%g\"} %" PRIu64 "\n",
				route_names[route], bounds[i], count);
	}
	count += buckets[route][BUCKETS];
	fprintf(out, "poll_gateway_request_seconds_bucket{route=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", route_names[route], count);
	fprintf(out, "poll_gateway_request_seconds_count{route=\"%s\"} %" PRIu64 "\n", route_names[route], count);
	fprintf(out, "poll_gateway_request_seconds_sum{route=\"%s\"} %.6f\n", route_names[route], seconds_sum[route]);
}

static void
print_requests(FILE *out)
{
	print_family(out, "requests", "counter", "Requests answered, by status.");
	for (Route route = 0; route < ROUTES; route++)
		for (int status = 0; status < MAX_STATUS; status++)
			if (requests[route][status] > 0)
				fprintf(out, "poll_gateway_requests_total{route=\"%s\",status=\"%d\"} %" PRIu64 "\n",
						route_names[route], status, requests[route][status]);
	print_family(out, "sent_bytes", "counter", "Bytes of the bodies of answers.");
	for (Route route = 0; route < ROUTES; route++)
		fprintf(out, "poll_gateway_sent_bytes_total{route=\"%s\"} %" PRIu64 "\n", route_names[route], sent[route]);
	print_family(out, "request_seconds", "histogram", "From the end of a request to its answer.");
	for (Route route = 0; route < ROUTES; route++)
		print_durations(out, route);
}

static void
print_pool(FILE *out)
{
	PoolState	pool = pool_state();

	print_family(out, "database_connections", "gauge", "Connections to the database, by state.");
	fprintf(out, "poll_gateway_database_connections{state=\"idle\"} %d\n", pool.idle);
	fprintf(out, "poll_gateway_database_connections{state=\"busy\"} %d\n", pool.busy);
	fprintf(out, "poll_gateway_database_connections{state=\"down\"} %d\n", pool.down);
	print_gauge(out, "waiting", "Requests that wait for a connection to the database.", pool.waiting);
	print_gauge(out, "waiting_clients", "Polls that wait for news.", wait_count());
	print_family(out, "asked_again", "counter", "Polls that were asked again, after a wait.");
	fprintf(out, "poll_gateway_asked_again_total %" PRIu64 "\n", wait_asked_again());
	print_family(out, "database_failures", "counter", "Connections to the database lost or not obtained.");
	fprintf(out, "poll_gateway_database_failures_total %" PRIu64 "\n", pool.lost);
}

Answer
metrics_answer(int clients)
{
	char	   *text = NULL;
	size_t		size;
	FILE	   *out = open_memstream(&text, &size);
	Answer		answer;

	if (out == NULL)
		return answer_problem(MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
	print_requests(out);
	print_gauge(out, "clients", "Connections of clients that are open.", clients);
	print_pool(out);
	fputs("# EOF\n", out);
	fclose(out);
	answer = answer_text(MHD_HTTP_OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text);
	answer_header(&answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	free(text);
	return answer;
}
