/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-credential.h"

G_BEGIN_DECLS

/*
 * The credential agents that clients have registered (org.mitherm.CredentialAgent1): one for each
 * caller, forgotten when the caller leaves the bus.
 */
typedef struct _MithermAgents MithermAgents;

MithermAgents *mitherm_agents_new (GDBusConnection *connection);
/* Tells every agent that it is released. Requests under way go on by themselves. */
void mitherm_agents_free (MithermAgents *self);

/* A caller's second agent takes the place of its first, which is released. Fails with
 * MITHERM_ERROR_BUSY if there are too many. */
gboolean mitherm_agents_register (MithermAgents *self, const char *sender, const char *path,
                                  GError **error);
/* Fails with MITHERM_ERROR_NOT_FOUND. */
gboolean mitherm_agents_unregister (MithermAgents *self, const char *sender, const char *path,
                                    GError **error);
guint mitherm_agents_count (MithermAgents *self);

/**
 * mitherm_agents_request_async:
 * @caller: (nullable): bus name; its own agent is asked, else the one registered last
 * @device: object path
 * @cancellable: cancelling tells the agent that the request is not wanted any more
 *
 * Asks one agent for a credential, for request->limit_ms at most. Errors: MITHERM_ERROR_TIMEOUT,
 * MITHERM_ERROR_CREDENTIAL_REFUSED (no agent, it left the bus, it refused or made no sense),
 * G_IO_ERROR_CANCELLED.
 */
void mitherm_agents_request_async (MithermAgents *self, const char *caller, const char *device,
                                   const MithermCredentialRequest *request,
                                   GCancellable *cancellable, GAsyncReadyCallback callback,
                                   gpointer user_data);
/* (transfer full): mitherm_credential_free() */
MiCredential *mitherm_agents_request_finish (GAsyncResult *result, GError **error);

G_END_DECLS
