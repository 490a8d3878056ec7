/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "sim-device.h"

G_BEGIN_DECLS

#define TESTER_ADDRESS "A4:C1:38:00:00:01"

/*
 * A device under test with its outputs collected: notifications as lines "< 0019 00000101", events
 * as their JSON. Randomness is what tester_random() was given, then a fixed stream.
 */
typedef struct
{
  SimDevice *device;
  gint64 now;
  GPtrArray *lines;
  GPtrArray *events;
  gboolean dropped; /* by the device, since the last connect */
  guint8 reason;
  GByteArray *random;
  gsize drawn;
} Tester;

/* @keys: the lines of the device's group, without its head */
Tester *tester_new (const char *keys);
void tester_free (Tester *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Tester, tester_free)
/* The next random bytes that the device draws. */
void tester_random (Tester *self, const guint8 *data, gsize len);

void tester_connect (Tester *self, guint16 att);
void tester_disconnect (Tester *self);
void tester_tick (Tester *self, gint64 ms); /* so much later */
/* Ticks to the deadlines until none is left or @limit_ms have passed. */
void tester_settle (Tester *self, gint64 limit_ms);
/* A write that must be taken. */
void tester_write (Tester *self, guint16 channel, const guint8 *data, gsize len);
void tester_write_hex (Tester *self, guint16 channel, const char *hex);
/* (transfer full): what is read, as hex */
char *tester_read (Tester *self, guint16 channel);
/* (transfer full): what is read, as text */
char *tester_read_text (Tester *self, guint16 channel);

/* (transfer full) (nullable): the oldest notification not yet taken; ticks up to @limit_ms for it
 */
char *tester_next_line (Tester *self, gint64 limit_ms);
/* Exactly this is the next notification, within a second. */
void tester_expect (Tester *self, const char *line);
/* No notification is left, and none comes by @limit_ms. */
void tester_expect_silence (Tester *self, gint64 limit_ms);
/* (transfer full): names of the events so far, with codes: "ota-start ota-end:0 reboot" */
char *tester_events (Tester *self);

/* Plays "> 0010 a4" lines in and compares "< …" lines with what comes out. */
void tester_replay (Tester *self, const char *const *wire, gsize n);
/* Logs in with @token on a connection without exploration. */
void tester_login (Tester *self, const guint8 token[MI_TOKEN_LEN]);
/* Telink OTA: start, blocks first..last - 1 of @image, end. */
void tester_ota_start (Tester *self);
void tester_ota_blocks (Tester *self, const guint8 *image, gsize len, guint first, guint last);
void tester_ota_end (Tester *self, guint blocks);

G_END_DECLS
