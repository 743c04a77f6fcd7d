/*
 * metrics.h
 *		What the gateway has done, in numbers.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stdint.h>

#include "answer.h"

typedef enum Route
{
	ROUTE_POLL,
	ROUTE_FUNCTION,
	ROUTE_OTHER
} Route;

#define ROUTES		(ROUTE_OTHER + 1)

/* A request was answered, after that many seconds. */
extern void metrics_count(Route route, const Answer *answer, double seconds);

/* All numbers, as OpenMetrics text. */
extern Answer metrics_answer(int clients);

#endif							/* METRICS_H */
