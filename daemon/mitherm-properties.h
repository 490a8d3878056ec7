/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* (transfer floating): the value of property number @property */
typedef GVariant *(*MithermPropertyFunc) (gpointer object, guint property);

/* The properties of one D-Bus interface; their places are their numbers, at most 32. */
typedef struct
{
  const char *const *names;
  guint n;
  MithermPropertyFunc get;
} MithermProperties;

/* (transfer floating) (nullable): NULL if there is none of that name */
GVariant *mitherm_properties_get (const MithermProperties *self, gpointer object, const char *name);
/* (transfer floating): those whose bits are set in @which, as a{sv} */
GVariant *mitherm_properties_list (const MithermProperties *self, gpointer object, guint which);

G_END_DECLS
