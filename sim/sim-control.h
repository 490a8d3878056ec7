/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <json-glib/json-glib.h>

#include "sim-device.h"

G_BEGIN_DECLS

/*
 * JSON lines of --control: requests on standard input, answers and events on standard output.
 * Without @interactive only the readiness line is printed.
 */
typedef struct _SimControl SimControl;

/* Answers one request. Returns: (transfer full): the answer, an object */
typedef JsonNode *(*SimControlFunc) (JsonObject *request, gpointer user_data);

SimControl *sim_control_new (gboolean interactive, SimControlFunc func, gpointer user_data);
void sim_control_free (SimControl *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SimControl, sim_control_free)

/* Prints {"event":"ready"}. */
void sim_control_ready (SimControl *self);
/* Prints @json, an object with an "event", with the device's address put in front. */
void sim_control_event (SimControl *self, const char *address, const char *json);

/*
 * The lines that every front shares ("state", "fault", "battery") for one device. The caller ticks
 * and takes the outputs afterwards.
 *
 * Returns: (transfer full) (nullable): the answer; %NULL when "do" is none of them
 */
JsonNode *sim_control_answer (SimDevice *device, gint64 now_ms, JsonObject *request);
/* Returns: (transfer full): {"error": @message} */
JsonNode *sim_control_error (const char *message);
/* Returns: (transfer full): {"ok": true} */
JsonNode *sim_control_ok (void);

/* Members of a request with a default; a member of another type counts as absent. */
const char *sim_control_get_string (JsonObject *request, const char *name, const char *fallback);
gint64 sim_control_get_int (JsonObject *request, const char *name, gint64 fallback);
gboolean sim_control_get_boolean (JsonObject *request, const char *name, gboolean fallback);

G_END_DECLS
