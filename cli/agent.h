/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "app.h"

G_BEGIN_DECLS

/* A credential agent that runs a command for each request, with JSON on its standard input and
 * from its standard output. */
typedef struct _Agent Agent;

/**
 * agent_new:
 * @command: split as a shell would, but no shell runs
 *
 * Registers it with the daemon, on the connection of @app, which needs app_connect() before.
 *
 * Returns: (transfer full) (nullable): after printing why not
 */
Agent *agent_new (App *app, const char *command, ExitStatus *status);
/* Stops a command that still runs. */
void agent_free (Agent *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Agent, agent_free)

G_END_DECLS
