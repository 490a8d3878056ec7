/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-log.h"

/* One id for every line about a job, so that journalctl finds them all. */
#define JOB_MESSAGE_ID "8d0f5d0e6c1b4b5f9a3d7d1c2c0e4a71"

void
mitherm_log_device (GLogLevelFlags level, const char *address, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_log_structured (MITHERM_LOG_DOMAIN, level, "MITHERM_DEVICE", address, "MESSAGE", "%s: %s",
                    address, text);
}

void
mitherm_log_job (const char *address, const char *path, const char *kind, const char *outcome,
                 const char *text)
{
  g_log_structured (MITHERM_LOG_DOMAIN, G_LOG_LEVEL_MESSAGE, "MESSAGE_ID", JOB_MESSAGE_ID,
                    "MITHERM_DEVICE", address, "MITHERM_JOB", path, "MITHERM_KIND", kind,
                    "MITHERM_OUTCOME", outcome, "MESSAGE", "%s: %s %s%s%s", address, kind, outcome,
                    text != NULL && *text != '\0' ? ": " : "", text != NULL ? text : "");
}
