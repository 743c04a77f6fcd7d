/*
 * log.h
 *		What a program says, on standard error. PROGRAM, its name, is the Makefile's:
 *		polltail (../bin) has this, too.
 */
#ifndef LOG_H
#define LOG_H

/* A line. The format may have %m, as for syslog(3). */
extern void say(const char *format,...) __attribute__((format(printf, 1, 2)));

/* The same, and the end. */
extern void die(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));

#endif							/* LOG_H */
