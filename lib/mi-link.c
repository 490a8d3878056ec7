/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-link.h"

G_DEFINE_INTERFACE (MiLink, mi_link, G_TYPE_OBJECT)

static void
mi_link_default_init (MiLinkInterface *iface)
{
}

MiLinkFlags
mi_link_get_flags (MiLink *self, guint16 channel)
{
  g_return_val_if_fail (MI_IS_LINK (self), 0);

  return MI_LINK_GET_IFACE (self)->get_flags (self, channel);
}

guint16
mi_link_get_att_payload (MiLink *self)
{
  g_return_val_if_fail (MI_IS_LINK (self), 20);

  return MI_LINK_GET_IFACE (self)->get_att_payload (self);
}

gboolean
mi_link_write (MiLink *self, guint16 channel, const guint8 *data, gsize len, GError **error)
{
  g_return_val_if_fail (MI_IS_LINK (self), FALSE);
  g_return_val_if_fail (data != NULL || len == 0, FALSE);

  return MI_LINK_GET_IFACE (self)->write (self, channel, data, len, error);
}

void
mi_link_write_request_async (MiLink *self, guint16 channel, const guint8 *data, gsize len,
                             GCancellable *cancellable, GAsyncReadyCallback callback,
                             gpointer user_data)
{
  g_return_if_fail (MI_IS_LINK (self));
  g_return_if_fail (data != NULL || len == 0);

  MI_LINK_GET_IFACE (self)->write_request_async (self, channel, data, len, cancellable, callback,
                                                 user_data);
}

gboolean
mi_link_write_request_finish (MiLink *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MI_IS_LINK (self), FALSE);

  return MI_LINK_GET_IFACE (self)->write_request_finish (self, result, error);
}

void
mi_link_read_async (MiLink *self, guint16 channel, GCancellable *cancellable,
                    GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (MI_IS_LINK (self));

  MI_LINK_GET_IFACE (self)->read_async (self, channel, cancellable, callback, user_data);
}

GBytes *
mi_link_read_finish (MiLink *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MI_IS_LINK (self), NULL);

  return MI_LINK_GET_IFACE (self)->read_finish (self, result, error);
}

void
mi_link_subscribe_async (MiLink *self, guint16 channel, GCancellable *cancellable,
                         GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (MI_IS_LINK (self));

  MI_LINK_GET_IFACE (self)->subscribe_async (self, channel, cancellable, callback, user_data);
}

gboolean
mi_link_subscribe_finish (MiLink *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MI_IS_LINK (self), FALSE);

  return MI_LINK_GET_IFACE (self)->subscribe_finish (self, result, error);
}

void
mi_link_set_callbacks (MiLink *self, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                       gpointer user_data)
{
  g_return_if_fail (MI_IS_LINK (self));

  MI_LINK_GET_IFACE (self)->set_callbacks (self, notify, closed, user_data);
}

void
mi_link_disconnect (MiLink *self)
{
  g_return_if_fail (MI_IS_LINK (self));

  MI_LINK_GET_IFACE (self)->disconnect (self);
}

gboolean
mi_link_is_closed (MiLink *self)
{
  g_return_val_if_fail (MI_IS_LINK (self), TRUE);

  return MI_LINK_GET_IFACE (self)->is_closed (self);
}
