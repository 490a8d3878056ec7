/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-properties.h"

GVariant *
mitherm_properties_get (const MithermProperties *self, gpointer object, const char *name)
{
  for (guint i = 0; i < self->n; i++)
    {
      if (g_str_equal (self->names[i], name))
        return self->get (object, i);
    }
  return NULL; /* GDBus has compared the name with the interface before */
}

GVariant *
mitherm_properties_list (const MithermProperties *self, gpointer object, guint which)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_VARDICT);
  for (guint i = 0; i < self->n; i++)
    {
      if ((which & (1u << i)) != 0)
        g_variant_builder_add (&builder, "{sv}", self->names[i], self->get (object, i));
    }
  return g_variant_builder_end (&builder);
}
