/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define MITHERM_LOG_DOMAIN "mithermd"

/*
 * Lines for people, with fields for journalctl: MITHERM_DEVICE, MITHERM_JOB, MITHERM_KIND and
 * MITHERM_OUTCOME. No line ever carries a secret.
 */

/* About one thermometer. */
void mitherm_log_device (GLogLevelFlags level, const char *address, const char *format, ...)
    G_GNUC_PRINTF (3, 4);

/* @outcome: "started", "done", or the name of an error. */
void mitherm_log_job (const char *address, const char *path, const char *kind, const char *outcome,
                      const char *text);

G_END_DECLS
