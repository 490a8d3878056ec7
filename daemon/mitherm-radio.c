/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-radio.h"

G_DEFINE_INTERFACE (MithermRadio, mitherm_radio, G_TYPE_OBJECT)

static void
mitherm_radio_default_init (MithermRadioInterface *iface)
{
}

void
mitherm_radio_set_callbacks (MithermRadio *self, MithermAdvertFunc advert,
                             MithermRadioChangedFunc changed, gpointer user_data)
{
  g_return_if_fail (MITHERM_IS_RADIO (self));

  MITHERM_RADIO_GET_IFACE (self)->set_callbacks (self, advert, changed, user_data);
}

char **
mitherm_radio_dup_adapters (MithermRadio *self)
{
  g_return_val_if_fail (MITHERM_IS_RADIO (self), NULL);

  return MITHERM_RADIO_GET_IFACE (self)->dup_adapters (self);
}

gboolean
mitherm_radio_is_discovering (MithermRadio *self)
{
  g_return_val_if_fail (MITHERM_IS_RADIO (self), FALSE);

  return MITHERM_RADIO_GET_IFACE (self)->is_discovering (self);
}

void
mitherm_radio_set_discovery (MithermRadio *self, gboolean on)
{
  g_return_if_fail (MITHERM_IS_RADIO (self));

  MITHERM_RADIO_GET_IFACE (self)->set_discovery (self, on);
}

void
mitherm_radio_connect_async (MithermRadio *self, const char *address, const char *adapter,
                             MithermConnectStepFunc step, gpointer step_data,
                             GCancellable *cancellable, GAsyncReadyCallback callback,
                             gpointer user_data)
{
  g_return_if_fail (MITHERM_IS_RADIO (self));
  g_return_if_fail (address != NULL);

  MITHERM_RADIO_GET_IFACE (self)->connect_async (self, address, adapter, step, step_data,
                                                 cancellable, callback, user_data);
}

MiLink *
mitherm_radio_connect_finish (MithermRadio *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MITHERM_IS_RADIO (self), NULL);

  return MITHERM_RADIO_GET_IFACE (self)->connect_finish (self, result, error);
}

void
mitherm_radio_settle_async (MithermRadio *self, const char *address, GCancellable *cancellable,
                            GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (MITHERM_IS_RADIO (self));
  g_return_if_fail (address != NULL);

  MITHERM_RADIO_GET_IFACE (self)->settle_async (self, address, cancellable, callback, user_data);
}

gboolean
mitherm_radio_settle_finish (MithermRadio *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MITHERM_IS_RADIO (self), FALSE);

  return MITHERM_RADIO_GET_IFACE (self)->settle_finish (self, result, error);
}

void
mitherm_radio_forget_async (MithermRadio *self, const char *address, GCancellable *cancellable,
                            GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (MITHERM_IS_RADIO (self));
  g_return_if_fail (address != NULL);

  MITHERM_RADIO_GET_IFACE (self)->forget_async (self, address, cancellable, callback, user_data);
}

gboolean
mitherm_radio_forget_finish (MithermRadio *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MITHERM_IS_RADIO (self), FALSE);

  return MITHERM_RADIO_GET_IFACE (self)->forget_finish (self, result, error);
}
