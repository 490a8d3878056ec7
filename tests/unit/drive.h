/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-procedure.h"
#include "vectors.h"

G_BEGIN_DECLS

typedef enum
{
  DRIVE_ANSWER, /* at once */
  DRIVE_REFUSE, /* at once, with a refusal */
  DRIVE_KEEP,   /* not at all: the test answers itself */
} DriveAnswer;

typedef struct
{
  guint before_line;
  MiKeyState state;
  MiKeys keys;
} DrivePersist;

/**
 * Drive:
 *
 * Steps one procedure and writes down what happens on the wire, in the lines of the vectors:
 * "> 0010 a2000000" for a write, "< ..." for a notification, "r 2b12" for a read.
 */
typedef struct
{
  MiProcedure *procedure;
  MiEffects effects;
  gint64 now_ms;
  GPtrArray *lines;
  GArray *persists; /* DrivePersist */
  gboolean done, failed;
  MiError error;
  char *message;
  guint need_credential; /* effects seen */
  gint64 credential_deadline_ms;
  guint disconnects;
  guint terminal; /* DONE and FAILED effects seen */
  guint32 progress, total;
  /* behaviour of the rest of the world */
  DriveAnswer on_pending, on_current, on_credential;
  const MiCredential *credential;
} Drive;

/* @procedure: (transfer full) */
Drive *drive_new (MiProcedure *procedure);
void drive_free (Drive *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Drive, drive_free)

/* Takes the next procedure over on the same connection; the lines go on. */
void drive_next (Drive *self, MiProcedure *procedure);

void drive_event (Drive *self, MiEventKind kind);
void drive_channel_event (Drive *self, MiEventKind kind, guint16 channel, const guint8 *data,
                          gsize len);
/* A notification; @hex without blanks. */
void drive_receive (Drive *self, guint16 channel, const char *hex);
/* Moves the clock to the procedure's deadline and says so. FALSE: there is no deadline. */
gboolean drive_tick (Drive *self);
/* Ticks until the end; how long that took. Fails the test when it takes more than @limit_ms. */
gint64 drive_wait_end (Drive *self, gint64 limit_ms);

/* Plays lines @first.. of @wire: feeds "<", compares ">" (which the vectors show as sent). */
void drive_replay (Drive *self, JsonArray *wire, guint first);

void drive_assert_failed (Drive *self, MiError error);
void drive_assert_done (Drive *self);

/* Random bytes from a queue; FALSE when it is empty. */
gboolean drive_random (guint8 *out, gsize len, gpointer queue);

/* Hex member @name of exactly @len bytes; fails the test when it is missing or another length. */
void drive_hex (JsonObject *object, const char *name, guint8 *out, gsize len);

G_END_DECLS
