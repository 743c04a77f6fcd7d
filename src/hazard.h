/*
 * hazard.h
 *		When to look again for something that comes at irregular times.
 *
 * Known are the gaps between the last arrivals, and the age: the time since the
 * newest one.  Their hazard h(t) is the rate at which the next one comes at age t,
 * given that it has not come before.  Whoever looks after an interval I, at age a,
 * will have kept what comes in between waiting for
 *
 *		D(I) = integral from 0 to I of (I - s) h(a + s) ds
 *
 * on average.  The rule: look when that has reached kappa, the delay that a look is
 * worth.  For arrivals without memory, h = lambda, that is sqrt(2 kappa / lambda),
 * which minimizes delay + kappa * looks.  In the middle of a burst it is short, after
 * one long, and before a cron job's minute it waits for that.
 *
 * The estimate is that of Nelson and Aalen: at each gap g the integral of h rises by
 * 1 / (number of gaps >= g).  It is blended with what is assumed before anything is
 * known, h(t) = BETA / t, which has no time scale of its own, with the weight of
 * ALPHA gaps: so there is a hazard behind the longest gap, too.
 *
 * A pure function; times are in seconds.
 */
#ifndef POLL_HAZARD_H
#define POLL_HAZARD_H

#include <math.h>

#define POLL_HAZARD_GAPS	256 /* so many are enough */
#define POLL_HAZARD_ALPHA	1.0
#define POLL_HAZARD_BETA	0.8

/* D at the end of a piece of that hazard, which begins at age from */
typedef struct PollHazardPiece
{
	double		from;
	double		delay;			/* D at its beginning */
	double		sum;			/* the integral of h up to its beginning */
	double		beta;			/* h(t) = beta / t in it */
} PollHazardPiece;

static inline double
poll_hazard_delay(const PollHazardPiece *piece, double age)
{
	double		length = age - piece->from;

	return piece->delay + piece->sum * length +
		piece->beta * (age * log(age / piece->from) - length);
}

/* Where in the piece, which ends at that age, D is kappa. */
static inline double
poll_hazard_reach(const PollHazardPiece *piece, double end, double kappa)
{
	double		low = piece->from;
	double		high = end;

	while (high - low > 1e-4 * high)
	{
		double		middle = (low + high) / 2;

		if (poll_hazard_delay(piece, middle) >= kappa)
			high = middle;
		else
			low = middle;
	}
	return high;
}

/*
 * The interval; gaps are sorted, ascending.  It is at most longest.
 */
static inline double
poll_hazard_interval(const double *gaps, int n, double age, double kappa, double longest)
{
	PollHazardPiece piece = {Max(age, 1e-3), 0, 0, 0};
	double		begin = piece.from;
	int			i = 0;

	while (i < n && gaps[i] <= begin)
		i++;
	while (piece.from < begin + longest)
	{
		double		end = i < n ? gaps[i] : piece.from * 4;

		piece.beta = POLL_HAZARD_ALPHA * POLL_HAZARD_BETA / (n - i + POLL_HAZARD_ALPHA);
		if (poll_hazard_delay(&piece, end) >= kappa)
			return Min(poll_hazard_reach(&piece, end, kappa) - begin, longest);
		piece.delay = poll_hazard_delay(&piece, end);
		piece.sum += piece.beta * log(end / piece.from);
		piece.from = end;
		if (i < n)
			piece.sum += 1 / (n - i++ + POLL_HAZARD_ALPHA);
	}
	return longest;
}

#endif							/* POLL_HAZARD_H */
