/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

typedef enum
{
  MITHERM_AUTH_POLKIT, /* polkit decides; root alone where there is no polkit */
  MITHERM_AUTH_BUS,    /* whoever reaches the bus */
} MithermAuthMode;

typedef struct _MithermAuth MithermAuth;

/* @connection: the bus of our API, which polkit must be on as well */
MithermAuth *mitherm_auth_new (GDBusConnection *connection, MithermAuthMode mode);
void mitherm_auth_free (MithermAuth *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermAuth, mitherm_auth_free)

/* (transfer full) @invocation */
typedef void (*MithermAuthFunc) (GDBusMethodInvocation *invocation, GObject *object);

/**
 * mitherm_auth_check:
 * @invocation: (transfer full)
 * @action: "activate", of org.mitherm.policy
 * @object: kept until @func returns
 *
 * Calls @func if the caller may do @action, else answers the call with NotAuthorized.
 */
void mitherm_auth_check (MithermAuth *self, GDBusMethodInvocation *invocation, const char *action,
                         MithermAuthFunc func, GObject *object);

G_END_DECLS
