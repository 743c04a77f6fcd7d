/*
 * log.h
 *		What the gateway says, on standard error.
 */
#ifndef LOG_H
#define LOG_H

#define PROGRAM "poll-gateway"

/* A line. The format may have %m, as for syslog(3). */
extern void say(const char *format,...) __attribute__((format(printf, 1, 2)));

/* The same, and the end. */
extern void die(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

#endif							/* LOG_H */
